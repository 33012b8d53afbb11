"""From a data set as it is published to data that trains; what `hf-videovit prepare` runs."""

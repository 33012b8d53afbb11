"""Work on very many videos: decoders, models, results as parquet files, on one machine or on Ray."""

"""Pictures of clips, of reconstructions and of sparse tubes."""

"""Package data; see meshctl.data_files."""

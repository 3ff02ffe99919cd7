"""Files in and out: inputs, uploads, downloads and outputs."""

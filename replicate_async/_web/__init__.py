"""What web apps need around a client: webhooks in, streams and files out."""

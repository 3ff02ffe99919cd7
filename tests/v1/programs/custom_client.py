"""Clients of one's own: timeouts, headers, and the default client changed."""

import os

import httpx

import replicate

client = replicate.Client(
    api_token=os.environ["REPLICATE_API_TOKEN"],
    timeout=httpx.Timeout(10.0, read=120.0, connect=5.0),
    headers={"User-Agent": "my-app/1.0"},
)
version = client.models.get("replicate/hello-world").latest_version
print(client.run(f"replicate/hello-world:{version.id}", input={"text": "mine"}))
print(type(client).__name__, client.poll_interval, replicate.default_client.poll_interval)
replicate.default_client.poll_interval = 0.02
prediction = replicate.predictions.create(version, {"text": "polled"})
prediction.wait()
print(prediction.output, replicate.default_client.poll_interval)
other = replicate.client.Client(
    api_token=os.environ["REPLICATE_API_TOKEN"],
    base_url=os.environ["REPLICATE_BASE_URL"],
    timeout=30,
)
print(other.predictions.get(prediction.id).output)

"""Tokens: wrong, missing, and passed in several ways."""

import os

import replicate
from replicate.client import Client

token = os.environ.pop("REPLICATE_API_TOKEN")
for client in (Client(api_token="r8_wrong"), Client()):
    try:
        client.models.get("replicate/hello-world")
    except replicate.exceptions.ReplicateError as error:
        print(error.status, error.title, bool(error.detail))
print(Client(api_token=token).models.get("replicate/hello-world").name)
print(Client(headers={"Authorization": f"Bearer {token}"}).accounts.current().username)
os.environ["REPLICATE_API_TOKEN"] = token
print(replicate.models.get("replicate/hello-world").name)
print(replicate.default_client.accounts.current().type)

"""The account, the hardware and the collections."""

import replicate

account = replicate.default_client.accounts.current()
print(account)
print(account.type, account.username, account.name, account.github_url)
for hardware in replicate.hardware.list():
    print(hardware.sku, hardware.name, hardware.dict())
collection = replicate.collections.get("text-to-image")
print(collection.slug, collection.name, len(collection), [model.id for model in collection])
print(collection[0].id, [model.id for model in collection[:1]], collection.models[0].owner)
print([model.id for model in replicate.models.search("writer")])

"""Lists, page by page."""

import replicate

seen = []
for page in replicate.paginate(replicate.models.list):
    print(
        type(page).__name__, len(page), len(page.results), page.previous is None, page.next is None
    )
    seen.extend(model.id for model in page)
print(seen)
again = []
page = replicate.models.list()
while page:
    again.extend(page.results)
    page = replicate.models.list(page.next) if page.next else None
print([model.id for model in again] == seen, page)
first = replicate.models.list()
print(first[0].id, first.results[-1].id)
second = replicate.models.list(first.next)
print(replicate.models.list(second.previous)[0].id == first[0].id)
for name in replicate.collections.list():
    print(name.slug, name.name, name.description, name.models, len(name))

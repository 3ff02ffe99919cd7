"""URLs instead of files, fetched by another library."""

import httpx

import replicate

urls = replicate.run(
    "emulator/painter",
    input={"prompt": "hills", "num_outputs": 2, "seed": 3},
    use_file_output=False,
)
for url in urls:
    print(type(url).__name__, url.split(":")[0], url.rsplit("/", 1)[1])
    response = httpx.get(url)
    print(response.status_code, response.headers["content-type"], len(response.content))

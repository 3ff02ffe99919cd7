"""A web backend that starts predictions and tells their states."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import replicate
from replicate.exceptions import ModelError, ReplicateError


async def generate(request):
    body = await request.json()
    model = await replicate.models.async_get(body["model"])
    prediction = await replicate.predictions.async_create(
        version=model.latest_version.id, input=body["input"]
    )
    return JSONResponse({"id": prediction.id, "status": prediction.status}, status_code=202)


async def status(request):
    try:
        prediction = await replicate.predictions.async_get(request.path_params["id"])
    except ReplicateError as error:
        return JSONResponse({"detail": error.detail}, status_code=error.status)
    return JSONResponse(prediction.dict())


async def run(request):
    try:
        output = await replicate.async_run("acme/breaks", input=await request.json())
    except ModelError as error:
        return JSONResponse({"error": str(error)}, status_code=500)
    return JSONResponse(output)


async def chat(request):
    events = await replicate.async_stream(
        "emulator/writer", input={"prompt": request.query_params["q"], "max_tokens": 4}
    )

    async def pieces():
        async for event in events:
            yield str(event)

    return StreamingResponse(pieces())


app = Starlette(
    routes=[
        Route("/generate", generate, methods=["POST"]),
        Route("/status/{id}", status),
        Route("/run", run, methods=["POST"]),
        Route("/chat", chat),
    ]
)

with TestClient(app) as client:
    started = client.post(
        "/generate", json={"model": "replicate/hello-world", "input": {"text": "web"}}
    )
    print(started.status_code, started.json()["status"])
    while (state := client.get(f"/status/{started.json()['id']}").json())["status"] != "succeeded":
        pass
    print(state["output"], sorted(state), sorted(state["urls"]))
    missing = client.get("/status/nothing")
    print(missing.status_code, missing.json())
    failed = client.post("/run", json={"error": "too bad"})
    print(failed.status_code, failed.json())
    print(client.get("/chat", params={"q": "hi"}).text)

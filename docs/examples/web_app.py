"""A web app with a page: a poem that appears as it is written, and a picture with a progress bar.

Run it against the emulator, whose models need no token:

    replicate-async emulator --port 8100          # prints the variables to export
    uvicorn --app-dir docs/examples web_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

import replicate_async as replicate
from replicate_async import exceptions

POET = os.environ.get("POET", "emulator/writer")
PAINTER = os.environ.get("PAINTER", "emulator/painter")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one client for the life of the app."""
    async with replicate.Client() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(exceptions.ReplicateException)
async def failed(request: Request, error: Exception) -> JSONResponse:
    """Tell the page why: 422 if its input was refused, or else 502."""
    is_input = isinstance(error, exceptions.ValidationError)
    return JSONResponse({"message": str(error)}, status_code=422 if is_input else 502)


@app.get("/")
async def page() -> FileResponse:
    """Serve the page."""
    return FileResponse(Path(__file__).with_name("web_app.html"))


@app.post("/poems")
async def create_poem(request: Request, prompt: str) -> dict[str, str]:
    """Create a prediction. The page then follows it, and may reconnect."""
    client: replicate.Client = request.app.state.client
    prediction = await client.predictions.create(
        model=POET, input={"prompt": prompt}, cancel_after="5m"
    )
    return {"id": prediction.id}


@app.get("/poems/{id}/events")
async def poem_events(
    request: Request, id: str, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Stream the events of a poem. After a lost connection, stream those that the browser has not seen."""
    client: replicate.Client = request.app.state.client
    try:
        prediction = await client.predictions.get(id)
        stream = prediction.stream(last_event_id=last_event_id)
    except (exceptions.NotFoundError, exceptions.ArgumentError) as error:
        raise HTTPException(404) from error
    return StreamingResponse(
        replicate.sse(stream),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@app.websocket("/pictures")
async def picture(socket: WebSocket) -> None:
    """Paint a picture for a browser. If the browser leaves, the prediction is cancelled."""
    with suppress(exceptions.RequestDisconnected, WebSocketDisconnect):
        await socket.accept()
        prompt = await socket.receive_text()
        await replicate.while_connected(socket, paint(socket, prompt))
        await socket.close()


async def paint(socket: WebSocket, prompt: str) -> None:
    """Send the progress of a picture, then its URL."""
    client: replicate.Client = socket.app.state.client
    try:
        async with client.start(PAINTER, {"prompt": prompt}, timeout=300) as run:
            async for update in run.updates():
                done = update.progress.percentage if update.progress else 0
                await socket.send_json({"status": update.status, "progress": done})
            output = await run.result()
    except exceptions.ReplicateException as error:
        await socket.send_json({"status": "failed", "message": str(error)})
    else:
        url = output[0] if isinstance(output, list) else output
        await socket.send_json({"status": "succeeded", "progress": 1, "url": str(url)})

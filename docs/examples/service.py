"""A web service: a picture in, what is found in it out. One model, many threads, and limits that hold.

pip install 'edgecv[device,preview]' && python service.py yolov8n.ecv
curl --data-binary @street.jpg localhost:8000/detect               # JSON
curl --data-binary @street.jpg localhost:8000/plot > found.jpg     # the picture with boxes
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import edgecv

MOST_BYTES, MOST_MEGAPIXELS, UPLOAD_S = 8_000_000, 16, 10
THREADS, WAITING = 4, 32  # who comes when all of them are taken is told to try again

model = edgecv.Model.load(sys.argv[1])
pool = ThreadPoolExecutor(THREADS)
places = asyncio.Semaphore(THREADS + WAITING)


def look(body: bytes) -> edgecv.Result:
    return model.look(edgecv.read_image(body, max_megapixels=MOST_MEGAPIXELS))


def detect(body: bytes) -> Response:
    return JSONResponse(look(body).as_dict())


def plot(body: bytes) -> Response:
    return Response(cv2.imencode(".jpg", look(body).plot())[1].tobytes(), media_type="image/jpeg")


async def read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"Send at most {MOST_BYTES} bytes.")
    return bytes(body)


def endpoint(answer: Callable[[bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        if places.locked():
            raise HTTPException(503, "Too many requests at once.", {"Retry-After": "1"})
        async with places:
            try:
                body = await asyncio.wait_for(read_body(request), UPLOAD_S)
                return await asyncio.get_running_loop().run_in_executor(pool, answer, body)
            except (asyncio.TimeoutError, ClientDisconnect):
                raise HTTPException(408, "The picture did not arrive in time.") from None
            except edgecv.errors.SourceError as error:  # no picture, a damaged one, or one of too many pixels
                raise HTTPException(400, f"{error.message} {error.hint}") from error

    return respond


async def health(_: Request) -> Response:
    return JSONResponse({"model": model.name})


routes = [
    Route("/detect", endpoint(detect), methods=["POST"]),
    Route("/plot", endpoint(plot), methods=["POST"]),
    Route("/health", health),
]
app = Starlette(routes=routes)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000, log_level="warning")

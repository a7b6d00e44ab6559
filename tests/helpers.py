"""What tests of several rooms share: a web server, a visit of the browser, AUPRO by definition."""

import http.server
from contextlib import contextmanager

import numpy as np
import torch
from scipy import ndimage
from torchvision.models import resnet50

from texad.model.weights import Weights


class Server(http.server.ThreadingHTTPServer):
    """Sends `content`; `cuts` are the bytes after which the next connections break."""

    daemon_threads = True
    content = b""
    knows_ranges = True
    cuts: tuple[int, ...] = ()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str | None, int]] = []  # range asked for, bytes sent


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        start = (
            int(asked.removeprefix("bytes=").removesuffix("-"))
            if asked and server.knows_ranges
            else 0
        )
        body = server.content[start:]
        if asked and server.knows_ranges and not body:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            server.requests.append((asked, 0))
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, *server.cuts = server.cuts or (len(body),)
        server.requests.append((asked, len(body[:cut])))  # before the reader can look
        self.wfile.write(body[:cut])

    def log_message(self, *args):
        pass


def is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


@contextmanager
def visit(browser, width=1280, scheme="light"):
    """An empty page without a network, and the list of what the browser will complain of."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.route(
        "**/*", lambda route: route.continue_() if is_local(route.request.url) else route.abort()
    )
    page, problems = context.new_page(), []
    page.on(
        "request",
        lambda request: (
            None if is_local(request.url) else problems.append(f"network: {request.url}")
        ),
    )
    page.on("requestfailed", lambda request: problems.append(f"request: {request.url}"))
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on(
        "console",
        lambda message: (
            problems.append(f"console: {message.text} {message.location}")
            if message.type == "error"
            else None
        ),
    )
    yield page, problems
    context.close()


def naive_aupro(masks, maps, max_fpr=0.3):
    """Every threshold, every region, one after the other."""
    regions = []
    for mask, values in zip(masks, maps, strict=True):
        numbered, n = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [values[numbered == i] for i in range(1, n + 1)]
    normal = np.concatenate([values[~mask] for mask, values in zip(masks, maps, strict=True)])
    thresholds = sorted({float(value) for values in maps for value in values.ravel()}, reverse=True)
    curve = [(0.0, 0.0)] + [
        ((normal >= t).mean(), np.mean([(region >= t).mean() for region in regions]))
        for t in thresholds
    ]
    area = 0.0
    for (x0, y0), (x1, y1) in zip(curve, curve[1:], strict=False):
        if x1 > max_fpr > x0:
            x1, y1 = max_fpr, y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
        if x1 <= max_fpr:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def slim_weights(width: int = 24) -> Weights:
    """Random weights of a slimmer ResNet-50; every convolution counts, and BatchNorm does."""
    torch.manual_seed(5)
    network = resnet50(weights=None, width_per_group=width)
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3")
    state_dict = {n: t for n, t in network.state_dict().items() if n.split(".")[0] in stages}
    for name, tensor in state_dict.items():
        if name.endswith("running_var") or tensor.ndim == 1 and name.endswith("weight"):
            tensor.uniform_(0.5, 1)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1)
    return Weights("slim.safetensors", "0" * 64, state_dict, stride_in_1x1=True)

"""A device without parityfl, written after docs/http-api.md: the standard library, numpy and safetensors.

    python numpy_device.py NAME http://localhost:8080 DATA.npz

The file holds `images`, float32 of shape (n, channels, height, width), and `labels` from 0 to 9. The device trains the
model `mlp` for the objective `plain` on four fifths of them, by plain gradient steps, and measures on the rest. It can
be called from this machine only; HOST = "" lets others call it.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import numpy as np
from safetensors.numpy import load, save

HOST = "127.0.0.1"
NAME, SERVER, FILE = sys.argv[1:]
with np.load(FILE, allow_pickle=False) as data:
    SHAPE, LABELS = data["images"].shape[1:], data["labels"]
    IMAGES = data["images"].astype(np.float32).reshape(len(LABELS), -1)
KEPT = len(LABELS) * 4 // 5
CLASSES = [str(digit) for digit in range(10)]


def forward(model, images, labels):
    """Return the hidden units, the chance of each label, the mean cross-entropy and the accuracy."""
    hidden = np.maximum(images @ model["hidden.weight"].T + model["hidden.bias"], 0)
    logits = hidden @ model["output.weight"].T + model["output.bias"]
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    loss = float(-np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-30)).mean())
    return hidden, chances, loss if np.isfinite(loss) else None, float((chances.argmax(axis=1) == labels).mean())


def descend(model, images, labels, lr):
    """Take one step along the gradient of the mean cross-entropy; return what that was before."""
    hidden, error, loss, _ = forward(model, images, labels)
    error[np.arange(len(labels)), labels] -= 1
    back = (error @ model["output.weight"]) * (hidden > 0)
    for layer, seen, slope in (("hidden", images, back), ("output", hidden, error)):
        model[f"{layer}.weight"] -= lr / len(labels) * (slope.T @ seen)
        model[f"{layer}.bias"] -= lr / len(labels) * slope.sum(axis=0)
    return loss


def train(request, sent):
    """Return the document of a TrainReply: what was learned is the model minus the one that was sent."""
    began, size, lr = time.monotonic(), request["training"]["batch_size"], request["training"]["lr"]
    model, losses = {name: tensor.copy() for name, tensor in sent.items()}, []
    for _ in range(request["training"]["epochs"]):
        order = np.random.default_rng().permutation(KEPT)
        losses += [descend(model, IMAGES[b], LABELS[b], lr) for b in np.split(order, range(size, KEPT, size))]
    before, after = (forward(weights, IMAGES[KEPT:], LABELS[KEPT:])[2] for weights in (sent, model))
    reply = {"device_id": NAME, "round": request["round"], "model_digest": request["model_digest"]}
    reply |= {"num_samples": KEPT, "train_loss": None if None in losses else float(np.mean(losses))}
    reply |= {"loss_before": before, "loss_after": after, "train_s": time.monotonic() - began}
    learned = {f"model.{name}": tensor - sent[name] for name, tensor in model.items()}
    return 200, "application/x-safetensors", save(learned, {"parityfl": json.dumps(reply)})


def evaluate(request, sent):
    """Return an EvaluateReply as JSON: how good the model that was sent is on what was held out."""
    _, _, loss, accuracy = forward(sent, IMAGES[KEPT:], LABELS[KEPT:])
    reply = {"device_id": NAME, "round": request["round"], "loss": loss, "accuracy": accuracy}
    return 200, "application/json", json.dumps({**reply, "num_samples": len(LABELS) - KEPT}).encode()


class Endpoints(BaseHTTPRequestHandler):
    """What the coordinator calls."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answer GET /health: the device is reached here."""
        self.answer(200, "application/json", b'{"status": "ok"}')

    def do_POST(self):
        """Answer POST /train and POST /evaluate, one at a time; refuse what is asked for another run."""
        document = self.rfile.read(int(self.headers["Content-Length"]))
        header = json.loads(document[8 : 8 + int.from_bytes(document[:8], "little")])
        request = json.loads(header["__metadata__"]["parityfl"])
        if request["run_id"] != place["run_id"]:
            problem = {"title": "Conflict", "status": 409, "detail": f"{NAME} belongs to run {place['run_id']}"}
            return self.answer(409, "application/problem+json", json.dumps(problem).encode())
        sent = {name.removeprefix("model."): tensor for name, tensor in load(document).items()}
        with turn:
            return self.answer(*(train if self.path == "/train" else evaluate)(request, sent))

    def answer(self, status, kind, body):
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def post(path, message):
    """Return what the coordinator answers to a message."""
    sent = Request(SERVER + path, json.dumps(message).encode(), {"Content-Type": "application/json"})
    with urlopen(sent, timeout=30) as answer:
        return json.load(answer)


def register():
    """Return the answer to who this is, where it listens and what it holds."""
    counts = np.bincount(LABELS[:KEPT], minlength=len(CLASSES)).tolist()
    own = {"classes": CLASSES, "shape": SHAPE, "dtype": "float32"}
    about = {"device_id": NAME, "port": server.server_port, "num_samples": KEPT, "label_counts": counts}
    return post("/register", {**about, "data": own})


turn = threading.Lock()
server = ThreadingHTTPServer((HOST, 0), Endpoints)
place = register()
threading.Thread(target=server.serve_forever, daemon=True).start()
while not (told := post("/status_update", {"device_id": NAME, "available": True}))["leave"]:
    if not told["known"]:
        place = register()
    time.sleep(place["heartbeat_s"] / 2)

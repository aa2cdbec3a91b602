"""Cameras on this machine alone: servers at 127.0.0.1 that stream numbered pictures."""

import io
import socket
import time
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import av
import numpy as np
from PIL import Image

BITS, WIDTH, HEIGHT = 10, 80, 48
TRANSPORT_STREAM = "video/mp2t"
MOTION_JPEG = "multipart/x-mixed-replace; boundary=frame"


def numbered(number):
    """A picture (48,80,3) that shows its number, one white or black column for each bit."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    columns = np.repeat(np.array(bits, np.uint8), WIDTH // BITS)
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (HEIGHT, WIDTH, 3)))


def number_of(frame):
    """The number that a frame (3,S,S) shows."""
    columns = frame.float().mean((0, 1)).chunk(BITS)
    return sum(int(column.mean() > 127) << bit for bit, column in enumerate(columns))


def transport_stream(count, fps, gop=5):
    """Pieces of an MPEG-TS, one for each picture."""
    written, pieces = io.BytesIO(), []
    with av.open(written, "w", format="mpegts", options={"flush_packets": "1"}) as file:
        stream = file.add_stream("mpeg2video", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = 0
        stream.options = {"threads": "1", "sc_threshold": "1000000000"}
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            file.mux(stream.encode(frame))
            pieces.append(written.getvalue()[sum(map(len, pieces)) :])
        file.mux(stream.encode())
    pieces[-1] += written.getvalue()[sum(map(len, pieces)) :]
    return pieces


def motion_jpeg(count):
    """Parts of a multipart answer, one JPEG each."""
    parts = []
    for number in range(count):
        jpeg = io.BytesIO()
        Image.fromarray(numbered(number)).save(jpeg, "JPEG", quality=90)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
        parts.append(head.encode() + jpeg.getvalue() + b"\r\n")
    return parts


class CameraServer(ThreadingHTTPServer):
    """Streams `pieces`, `fps` of them a second, to whoever asks; then it ends, or falls silent."""

    daemon_threads = True

    def __init__(self, pieces, fps, kind, *, falls_silent=False):
        self.pieces, self.fps, self.kind, self.falls_silent = pieces, fps, kind, falls_silent
        self.sent, self.asked, self.left = 0, [], Event()
        super().__init__(("127.0.0.1", 0), _Stream)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/live"


class _Stream(BaseHTTPRequestHandler):
    def do_GET(self):
        camera = self.server
        camera.asked.append(self.path)
        try:
            self.send_response(200)
            self.send_header("Content-Type", camera.kind)
            self.end_headers()
            begun_s = time.monotonic()
            for number, piece in enumerate(camera.pieces):
                time.sleep(max(0.0, begun_s + number / camera.fps - time.monotonic()))
                self.wfile.write(piece)
                camera.sent = number + 1
            if camera.falls_silent:
                self.connection.recv(1)  # which ends when the other side leaves
        except OSError:
            pass
        camera.left.set()

    def log_message(self, *_):
        pass


@contextmanager
def served(camera):
    """The camera while it is on."""
    thread = Thread(target=camera.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield camera
    finally:
        camera.shutdown()
        camera.server_close()
        thread.join()


@contextmanager
def spoken(content, name=""):
    """The address at which one who calls by TCP is sent some bytes."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def speak():
            with door.accept()[0] as connection:
                connection.sendall(content)

        speaker = Thread(target=speak, daemon=True)
        speaker.start()
        yield f"tcp://127.0.0.1:{door.getsockname()[1]}/{name}"
        speaker.join()

"""Pictures inside of a page."""

import base64

import cv2
import numpy as np

_JPEG_QUALITY = 85


class DataUris:
    """Pictures as data URIs; equal pictures are kept once.

    Attributes:
        uris: The data URIs.
        size: Length of all data URIs in bytes.
    """

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.size = 0
        self._known: dict[str, int] = {}

    def add(self, picture: np.ndarray) -> int:
        """Adds a picture, RGB uint8 `[H, W, 3]`, and returns its position in `uris`.

        It is a PNG or a JPEG, whichever is smaller: drawings of classes are small and exact as PNG.
        """
        bgr = np.ascontiguousarray(picture[..., ::-1])
        png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        form, data = min(("png", png), ("jpeg", jpeg), key=lambda pair: len(pair[1]))
        uri = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
        if uri not in self._known:
            self._known[uri] = len(self.uris)
            self.uris.append(uri)
            self.size += len(uri)
        return self._known[uri]

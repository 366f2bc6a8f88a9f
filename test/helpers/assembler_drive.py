"""An assembler that is fed message by message, in milliseconds, and what its frames hold."""

from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2

from aqr_perception.nodes.input.assembler import Assembler, AssemblerSettings, CameraSettings, FrameRequest
from aqr_perception.nodes.stamps import ns_to_stamp

MS = 1_000_000
START = 1_500_000_000_000 * MS


def settings(**changes: object) -> AssemblerSettings:
    cameras = tuple(CameraSettings(name, f"/{name}/image", f"/{name}/info", True) for name in ("front", "back"))
    defaults = {
        "cameras": cameras,
        "lidar_topic": "/points",
        "max_camera_age": 0.2,
        "camera_wait": 0.05,
        "lidar_timeout": 0.5,
        "camera_only_period": 0.1,
    }
    return AssemblerSettings(**(defaults | changes))


class Drive:
    """An assembler and a clock; times in milliseconds, stamps equal to the times of arrival unless given."""

    def __init__(self, chosen: AssemblerSettings | None = None) -> None:
        self.assembler = Assembler(chosen or settings())
        for camera in self.assembler.settings.cameras:
            self.assembler.on_info(camera.name, CameraInfo())

    def image(self, name: str, now: int, stamp: int | None = None) -> float:
        message = CompressedImage()
        message.header.stamp = ns_to_stamp(START + (now if stamp is None else stamp) * MS)
        return self.assembler.on_image(name, message, now / 1e3)

    def sweep(self, now: int, stamp: int | None = None, frame_id: str = "lidar") -> float:
        message = PointCloud2()
        message.header.stamp = ns_to_stamp(START + (now if stamp is None else stamp) * MS)
        message.header.frame_id = frame_id
        return self.assembler.on_cloud(message, now / 1e3)

    def poll(self, now: int) -> FrameRequest | None:
        return self.assembler.poll(now / 1e3)


def used(request: FrameRequest) -> dict[str, int]:
    """The cameras of a request and their images' stamps, milliseconds."""
    return {camera.settings.name: (camera.stamp_ns - START) // MS for camera in request.cameras}


def reasons(request: FrameRequest) -> dict[str, str]:
    return {name: use.reason for name, use in request.left_out.items()}


def frames_of(drive: Drive, begin: int, end: int) -> list[tuple[int, bool]]:
    """Poll every 10 ms; stamps in milliseconds, and whether a sweep is in the frame."""
    requests = [request for now in range(begin, end, 10) if (request := drive.poll(now))]
    return [((request.stamp_ns - START) // MS, bool(request.sweeps)) for request in requests]

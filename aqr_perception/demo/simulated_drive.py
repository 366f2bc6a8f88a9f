"""The simulated drive of the demo, stored as a bag."""

from dataclasses import dataclass
from pathlib import Path

from aqr_perception.data.sources.simulated import VERSION
from aqr_perception.simulator.bag import write_bag
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig


@dataclass(frozen=True)
class DemoDrive:
    """Settings of the drive.

    Attributes:
        seed: seed of the scene. Training uses seeds from 10,000 on and evaluation 0 to 199, so the scene is new.
        seconds: length of the drive.
        rate: sweeps, and images of each camera, per second.
        picture: image width and height in pixels. Larger than the input of aqr_tiny, for the report, but less than
            twice as large, because the node decodes larger images at half size.
    """

    seed: int = 5005
    seconds: float = 20.0
    rate: float = 5.0
    picture: tuple[int, int] = (528, 192)

    @property
    def file_name(self) -> str:
        """Name of the bag; it differs for every drive and version of the simulator."""
        width, height = self.picture
        return f"drive_v{VERSION}_{self.seed}_{self.seconds:g}s_{self.rate:g}hz_{width}x{height}.mcap"

    def ensure_bag(self, folder: Path, progress: bool = True) -> Path:
        """Return the path of the bag in a folder; simulate the drive first if the bag does not exist.

        Raises:
            BagError: see `BagWriter`.
        """
        path = folder / self.file_name
        if not path.exists():
            drive = draw_drive(self.seed, self.seconds, nuscenes_rig(self.picture))
            write_bag(drive, path, self.seconds, rate=self.rate, progress=progress)
        return path

from fsspec.spec import AbstractFileSystem
from pyarrow.fs import FileSystem

class ArrowFSWrapper(AbstractFileSystem):
    def __init__(self, fs: FileSystem, **options: object) -> None: ...

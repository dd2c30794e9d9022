"""GhostNetV2 for MindSpore. Importing any part first sets the environment that MindSpore reads when it starts."""

from src.runtime import prepare_environment

VERSION = "0.1.0"

prepare_environment()

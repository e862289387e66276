"""Web page of `posedy app`."""

import os

# Before the import of gradio, which reads settings from variables GRADIO_*: a port, folders to publish or an invalid
# value for another program must have no effect. The folder of uploads and the path behind a reverse proxy are kept.
for _name in [name for name in os.environ if name.startswith("GRADIO_")]:
    if _name not in ("GRADIO_TEMP_DIR", "GRADIO_ROOT_PATH"):
        del os.environ[_name]
# gradio otherwise sends usage data and checks for updates
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

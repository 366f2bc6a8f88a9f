"""nuScenes detection metrics and the robustness table."""

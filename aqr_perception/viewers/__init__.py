"""Views of the node's outputs: RViz, Foxglove and Rerun, without ROS."""

"""Start the perception node, and optionally play a bag and open RViz."""

from launch.action import Action
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

_SHARE = FindPackageShare("aqr_perception")
_OVERRIDES = {"model": "model.preset", "checkpoint": "model.checkpoint", "device": "model.device"}


def _node_and_bag(context: LaunchContext, *_args: object, **_kwargs: object) -> list[Action]:
    """Return the actions that start the node, and play the bag once the node is active.

    Empty arguments do not override the parameter file.
    """
    arguments = {name: LaunchConfiguration(name).perform(context) for name in _OVERRIDES}
    overrides = {_OVERRIDES[name]: value for name, value in arguments.items() if value}
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = LifecycleNode(
        package="aqr_perception",
        executable="perception_node",
        name="aqr_perception",
        namespace="",
        output="screen",
        parameters=[LaunchConfiguration("config"), {**overrides, "use_sim_time": use_sim_time}],
    )
    bag = LaunchConfiguration("bag").perform(context)
    if not bag:
        return [node]
    # Wait until the node is active: a short bag could end before a large model is loaded.
    play = ExecuteProcess(cmd=["ros2", "bag", "play", bag, "--clock"], output="screen")
    active = OnStateTransition(target_lifecycle_node=node, goal_state="active", entities=[play], handle_once=True)
    return [RegisterEventHandler(active), node]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description; `ros2 launch --show-args` lists the arguments."""
    arguments = [
        DeclareLaunchArgument(
            "config",
            default_value=PathJoinSubstitution([_SHARE, "config", "perception.yaml"]),
            description="path of the node's parameter file",
        ),
        DeclareLaunchArgument("model", default_value="", description="model preset; empty: as in the parameter file"),
        DeclareLaunchArgument(
            "checkpoint",
            default_value="",
            description="path of the weights, or random; empty: as in the parameter file",
        ),
        DeclareLaunchArgument(
            "device", default_value="", description="auto, cpu, cuda or cuda:N; empty: as in the parameter file"
        ),
        DeclareLaunchArgument(
            "bag", default_value="", description="path of a rosbag2 to play once the node is active; empty: none"
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="true: open RViz"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="true: use the time of /clock"),
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([_SHARE, "config", "aqr_perception.rviz"])],
        parameters=[{"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=_node_and_bag), rviz])

"""The uplink that the configuration asks for; loads the library of that kind alone."""

from collections.abc import Callable

from contract import topics
from gateway import config
from gateway.config import AwsIotUplink, Configuration
from gateway.uplinks.port import Will
from gateway.uplinks.sessions import SessionUplink


def build(
    configuration: Configuration,
    settings: config.Uplink,
    will: Callable[[], Will] | None = None,
    *,
    client_suffix: str = "",
) -> SessionUplink:
    """Return an uplink that has not started; it hears receipts and commands as far as they are wanted.

    client_suffix: added to the client id, so that a session beside the gateway's does not end that one
    """
    gateway = configuration.gateway
    wanted: list[topics.GatewayChannel] = ["receipt"] if settings.acknowledge == "store" else []
    if gateway.accept_commands:
        wanted.append("command")
    subscriptions = [topics.gateway_topic(gateway.site, gateway.name, channel) for channel in wanted]
    if isinstance(settings, AwsIotUplink):
        from gateway.uplinks.aws_iot import AwsIotCore

        return AwsIotCore.from_config(settings, subscriptions=subscriptions, will=will)
    from gateway.uplinks.mqtt import MqttUplink

    client_id = settings.client_id or f"oee-{gateway.site}-{gateway.name}-{settings.name}"
    return MqttUplink.from_config(
        settings, client_id=client_id + client_suffix, subscriptions=subscriptions, will=will
    )

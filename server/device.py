"""The device that decides, while it serves: a lost one is logged, marked in health, and tried again."""

import asyncio

import structlog

from models.device import Device

SERVICE = "miaopi.v1.device"  # of the health protocol: NOT_SERVING while the CPU stands in
POLL_SECONDS = 0.2

log = structlog.get_logger()


async def follow(device: Device) -> None:
    """Say when the device is lost and when it is back; try it again beside the decisions. Runs until cancelled."""
    working = True
    while True:
        if device.due:
            await asyncio.to_thread(device.retry)
        if working and not device.working:
            log.error(
                "device_lost", device=device.name, losses=device.losses, batches=device.batches, problem=device.problem
            )
        elif device.working and not working:
            log.info("device_back", device=device.name, losses=device.losses, cpu_batches=device.cpu_batches)
        working = device.working
        await asyncio.sleep(POLL_SECONDS)

"""What every broker looks like to the engine: simulated in process, simulated over loopback, paper or live."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Protocol

import attrs

from trio_nt.model.orders import BrokerUpdate, OrderRequest, OrderState


@attrs.frozen
class BrokerOrder:
    """An order as the broker's book shows it."""

    client_order_id: str
    broker_order_id: str
    instrument: str
    state: OrderState
    quantity: Decimal
    filled_quantity: Decimal
    request: OrderRequest | None = None


@attrs.frozen
class Account:
    """Cash by currency as the broker shows it, and the name that it gives the account (empty where it has none)."""

    cash: Mapping[str, Decimal]
    number: str = ""


class UpdateReceiver(Protocol):
    """The broker's update stream, in the order in which things happened."""

    async def receive(self) -> Sequence[BrokerUpdate]:
        """All updates that are there, at least one. Raises ``trio.EndOfChannel`` when the stream has ended."""


class Broker(Protocol):
    """Every method is a checkpoint. An outcome that cannot be known raises ``OutcomeUnknown``.

    Raises (all):
        ExecutionError: the broker answered what has no meaning, or cannot be reached and the request did not leave.
        OutcomeUnknown: the request left, no answer came: look the order up by its client order id.
        OrderRejected: the broker said no, with its reason.
    """

    async def submit(self, request: OrderRequest) -> BrokerOrder: ...
    async def replace(
        self, client_order_id: str, *, quantity: Decimal | None = None, limit_price: Decimal | None = None
    ) -> BrokerOrder: ...
    async def cancel(self, client_order_id: str) -> None: ...
    async def find(self, client_order_id: str) -> BrokerOrder | None: ...
    async def open_orders(self) -> Sequence[BrokerOrder]: ...
    async def fills_since(self, ts_event: int) -> Sequence[BrokerUpdate]: ...
    async def positions(self) -> Mapping[str, Decimal]: ...
    async def account(self) -> Account: ...
    def updates(self) -> AbstractAsyncContextManager[UpdateReceiver]: ...

"""`risk feed`: the synthetic market, or real formats from files and sockets, onto market.data.raw."""

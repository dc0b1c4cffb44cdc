"""The agent as a service on a node: input and output around `meshctl.core.agentcore`, which decides everything."""

"""The HTTP faces; owns requests and answers, hands every change of work to engine, never imports cli, client or agent."""

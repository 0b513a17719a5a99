"""The web console for operators: pages that show the flow, the map, traces, dead letters and senders.

    browser ── guard ── pages ── sources: metrics of the stages, Kafka, ClickHouse

Sources answer with a problem in words when Kafka or ClickHouse is away, and are asked only while somebody looks.
"""

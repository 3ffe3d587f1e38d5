"""The tables. Times are seconds since 1970 (UTC); JSON is kept as text; money is text and read as Decimal."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_label)s",
    }
)
_Key = String(26)
_Name = String(63)
_Serial = BigInteger().with_variant(Integer, "sqlite")


def _at(name: str, *, nullable: bool = True) -> Column[float]:
    return Column(name, Double, nullable=nullable)


# --- who ------------------------------------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("is_admin", Boolean, nullable=False, default=False),
    Column("disabled", Boolean, nullable=False, default=False),
    _at("created_at", nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("share", Double, nullable=False, default=1.0),  # beside those of the other projects: see placement.fairshare
    Column(
        "home", _Name, nullable=False, server_default=""
    ),  # the site of its people, see placement.homerow; empty = none
    _at("created_at", nullable=False),
)

project_usage = Table(  # what each project used, decaying: usage * 0.5 ** ((now - as_of) / half-life)
    "project_usage",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("used", Double, nullable=False),  # processor-seconds
    _at("as_of", nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("user", _Name, primary_key=True),
    Column("role", String(16), nullable=False),  # member | manager
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("secret_hash", String(64), nullable=False, unique=True),  # SHA-256 of the secret; the secret is never stored
    Column("user", _Name, nullable=False, index=True),
    Column("scopes", Text, nullable=False),  # JSON list; see trust.access
    Column("description", Text, nullable=False, default=""),
    _at("created_at", nullable=False),
    _at("expires_at"),
    _at("revoked_at"),
    Column("site", _Name, nullable=False, default=""),  # an agent's token works for this site only
    _at("last_used_at"),  # written lazily, for people who clean up
)

secrets = Table(
    "secrets",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # encrypted with the key file of the service
    Column("created_by", _Name, nullable=False),
    _at("created_at", nullable=False),
)

# --- sites ----------------------------------------------------------------------------------------------------------

sites = Table(
    "sites",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("kind", _Name, nullable=False),
    Column("mode", String(8), nullable=False),  # direct | agent
    Column("region", String(255), nullable=False, default=""),
    Column("trust", String(255), nullable=False, default=""),
    Column("state", String(16), nullable=False),  # domain.site.SiteState
    Column("config", Text, nullable=False),  # JSON for the adapter; never holds a secret, only paths to them
    Column("accounts", Text, nullable=False),  # JSON: user -> local account; "*" = everybody else
    Column(
        "prices", Text, nullable=False, default="{}"
    ),  # JSON: pool or "*" -> {"cpu_hour": "0.01", "accelerator_hour": "1.2"}
    Column("created_by", _Name, nullable=False),
    _at("created_at", nullable=False),
    Column("description", Text, nullable=False, default=""),  # JSON SiteDescription as last seen
    _at("described_at"),
    _at("last_seen_at"),
    Column("agent_version", String(63), nullable=False, default=""),  # of the site's agent, as it told
    Column("agent_clock_offset", Double),  # seconds: its clock less ours, when it last told
    Column("error", Text, nullable=False, default=""),  # why it does not answer now; empty = it does
    Column(
        "version", Integer, nullable=False, default=1
    ),  # grows with every change of config, so that adapters are rebuilt
)

site_operators = Table(
    "site_operators",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("user", _Name, primary_key=True),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("site", _Name, nullable=False),
    Column("created_by", _Name, nullable=False),
    _at("created_at", nullable=False),
    _at("expires_at", nullable=False),
    _at("used_at"),
)

agent_calls = Table(  # the mailbox between the engine and the agent of a site
    "agent_calls",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("site", _Name, nullable=False),
    Column("method", String(32), nullable=False),
    Column("arguments", LargeBinary, nullable=False),  # sealed: a job's secrets pass through here
    Column("state", String(8), nullable=False),  # waiting | taken | done
    Column("answer", Text, nullable=False, default=""),
    Column("taken_by", _Key, nullable=False, default=""),
    _at("created_at", nullable=False),
    _at("taken_at"),
    _at("done_at"),
    _at("expires_at", nullable=False),
)
Index("ix_agent_calls_site_state", agent_calls.c.site, agent_calls.c.state, agent_calls.c.id)

site_blobs = Table(  # content that a site's agent showed to have, by sending it
    "site_blobs",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    _at("created_at", nullable=False),
)

benchmarks = Table(  # tasks that measure a node for the capability of its pool
    "benchmarks",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("site", _Name, nullable=False),
    Column("pool", String(255), nullable=False),
    Column("user", _Name, nullable=False),
    Column("state", String(8), nullable=False),  # due | done | failed
    Column("node", String(255), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),  # why it failed
    Column("body", Text, nullable=False, default=""),  # JSON domain.capability.NodeCapability
    _at("created_at", nullable=False),
    _at("measured_at"),
)
Index("ix_benchmarks_site", benchmarks.c.site, benchmarks.c.pool, benchmarks.c.task_id)
Index(
    "ix_benchmarks_due",
    benchmarks.c.task_id,
    sqlite_where=text("state = 'due'"),
    postgresql_where=text("state = 'due'"),
)

site_queues = Table(  # the jobs in the queues of a site as last seen, without names
    "site_queues",
    metadata,
    Column("site", _Name, primary_key=True),
    _at("at", nullable=False),  # by the site's clock
    _at("seen_at", nullable=False),
    Column("digest", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),  # JSON domain.queue.SiteQueue, its time left out, compressed by zlib
)

queue_history = (
    Table(  # jobs of anybody that were seen to run and end at a site: what waits are learned from after a start
        "queue_history",
        metadata,
        Column("id", _Serial, primary_key=True, autoincrement=True),
        Column("site", _Name, nullable=False),
        Column("pool", String(255), nullable=False),
        Column("job", _Name, nullable=False),
        Column("user", String(16), nullable=False),  # a hash; see sites.batch.strangers
        Column("processors", Integer, nullable=False),
        Column("limit_seconds", BigInteger, nullable=False),
        _at("submitted_at", nullable=False),
        _at("started_at", nullable=False),
        _at("ended_at", nullable=False),  # these three by the site's clock
        _at("kept_at", nullable=False),
        sqlite_autoincrement=True,
    )
)
Index("ix_queue_history_site", queue_history.c.site, queue_history.c.id)

carbon_series = (
    Table(  # the intensity of a site's grid by the hour, as an operator brought it in, and what is forecast after it
        "carbon_series",
        metadata,
        Column("site", _Name, primary_key=True),
        Column("first_hour", Integer, nullable=False),  # hours since 1970 in UTC
        Column("grams", Text, nullable=False),  # JSON: numbers, one for each hour
        Column("forecast", Text, nullable=False, default="[]"),  # JSON: numbers for the hours after
        Column("error", Double),  # mean relative error of such forecasts on the series itself
        _at("updated_at", nullable=False),
    )
)

site_hours = Table(  # what was seen of each pool in each hour, for eight weeks
    "site_hours",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("pool", String(255), primary_key=True),
    Column("hour", Integer, primary_key=True),  # hours since 1970 in UTC
    Column("looks", Integer, nullable=False),
    Column("load", Double, nullable=False),  # sum over the looks of the part of its processors that could not be had
    Column("price", Double),  # of a processor hour; null where the tariff has none, or one by the hour
    Column("carbon", Double),  # grams for each kWh; the same
)

site_ahead = Table(  # what is expected of each pool's load, price and carbon in the hours ahead
    "site_ahead",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("pool", String(255), primary_key=True),
    Column("what", String(8), primary_key=True),  # load | price | carbon
    Column("first_hour", Integer, nullable=False),
    Column("body", Text, nullable=False),  # JSON: quantiles and source of each hour, mean error by hours ahead
    _at("updated_at", nullable=False),
)

capabilities = Table(  # what the nodes of one kind in a pool come to, from their newest measurements
    "capabilities",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("pool", String(255), primary_key=True),
    Column("kind", String(255), primary_key=True),
    _at("measured_at", nullable=False),
    _at("stored_at", nullable=False),
    Column("general_units", Double),  # of one whole node; null where a figure is lacking
    Column("body", Text, nullable=False),  # JSON domain.capability.PoolCapability
)

# --- work -----------------------------------------------------------------------------------------------------------

tasks = Table(
    "tasks",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("project", _Name, nullable=False),
    Column("user", _Name, nullable=False),
    Column("name", String(255), nullable=False, default=""),
    Column("face", String(8), nullable=False, default="v1"),  # v1 | tes: how it came in
    Column("spec", Text, nullable=False),  # JSON domain.task.TaskSpec, without array (expanded) and depends_on (rows)
    Column("state", String(12), nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("rank", Double, nullable=False),  # created_at - priority * AGEING_SECONDS: smallest first ages linearly
    Column("array_id", _Key, nullable=False, default=""),
    Column("array_index", Integer),
    Column("gang", _Key, nullable=False, default=""),  # the tasks that start together
    Column("part", Integer),
    Column("blocked_by", Integer, nullable=False, default=0),  # dependencies not yet satisfied
    Column("attempts", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("moves", Integer, nullable=False, default=0),  # attempts that moved, and that made room: neither counts
    Column("restarts", Integer, nullable=False, default=0),
    Column("input_bytes", BigInteger, nullable=False, default=0),  # of the uploads that it needs at its site
    Column("fence", Integer, nullable=False, default=0),  # grows with each attempt
    Column("attempt", _Key, nullable=False, default=""),  # the live or last attempt
    Column("site", _Name, nullable=False, default=""),
    Column("pool", String(255), nullable=False, default=""),
    Column("avoid_sites", Text, nullable=False, default="[]"),  # JSON: sites that failed it, oldest first
    Column("exit_code", Integer),
    Column("reason", String(32), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    _at("cancel_requested_at"),
    Column("due_at", Double, nullable=False, default=0.0),  # not looked at by a round before
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    _at("started_at"),
    _at("ended_at"),
)
Index(
    "ix_tasks_waiting",
    tasks.c.project,
    tasks.c.rank,
    tasks.c.id,
    sqlite_where=text("state = 'waiting'"),
    postgresql_where=text("state = 'waiting'"),
)
Index("ix_tasks_project", tasks.c.project, tasks.c.id)
Index("ix_tasks_project_state", tasks.c.project, tasks.c.state, tasks.c.id)
Index("ix_tasks_user", tasks.c.user, tasks.c.id)
Index(
    "ix_tasks_site",
    tasks.c.site,
    tasks.c.id,
    sqlite_where=text("site <> ''"),
    postgresql_where=text("site <> ''"),
)
Index(
    "ix_tasks_array",
    tasks.c.array_id,
    tasks.c.array_index,
    sqlite_where=text("array_id <> ''"),
    postgresql_where=text("array_id <> ''"),
)

Index(
    "ix_tasks_gang",
    tasks.c.gang,
    tasks.c.part,
    sqlite_where=text("gang <> ''"),
    postgresql_where=text("gang <> ''"),
)

gangs = Table(  # groups of tasks that start together, each at another site; the id is that of the first part
    "gangs",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("project", _Name, nullable=False),
    Column("user", _Name, nullable=False),
    Column("name", _Name, nullable=False, default=""),
    Column("parts", Integer, nullable=False),
    Column("members", Integer, nullable=False),  # parts that were handed in
    Column("hold_seconds", Integer, nullable=False),
    Column("settled", Boolean, nullable=False, default=False),  # all parts have ended
    _at("created_at", nullable=False),
)
Index("ix_gangs_open", gangs.c.id, sqlite_where=text("NOT settled"), postgresql_where=text("NOT settled"))

task_tags = Table(
    "task_tags",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

tes_documents = Table(  # what a GA4GH TES client sent, so that it gets back what it sent
    "tes_documents",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("document", Text, nullable=False),  # JSON
    Column("warnings", Text, nullable=False, default="[]"),  # JSON list of lines for the system log
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("on_task_id", _Key, primary_key=True, index=True),
    Column("condition", String(16), nullable=False),
    Column("satisfied", Boolean, nullable=False, default=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("task_id", _Key, nullable=False, index=True),
    Column("project", _Name, nullable=False),
    Column("user", _Name, nullable=False),
    Column("number", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("site", _Name, nullable=False),
    Column("pool", String(255), nullable=False),
    Column("account", String(255), nullable=False, default=""),
    Column("state", String(12), nullable=False),
    Column("native_id", String(255), nullable=False, default=""),
    Column("nodes", Integer, nullable=False, default=1),  # demand, for the sums of promises
    Column("cpus", Integer, nullable=False, default=1),  # of all nodes
    Column("memory_bytes", BigInteger, nullable=False, default=0),  # of all nodes
    Column("accelerators", Integer, nullable=False, default=0),  # of all nodes
    Column("walltime_seconds", Integer, nullable=False, default=3600),
    Column("expected_seconds", Double, nullable=False, default=0.0),  # of running, when it was placed
    Column("exit_code", Integer),
    Column("reason", String(32), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    _at("cancel_sent_at"),
    Column("gang", _Key, nullable=False, default=""),  # of its task
    _at("let_go_at"),  # all parts of the gang were there: it may start
    _at("let_go_sent_at"),
    Column("held_seconds", Double, nullable=False, default=0.0),  # at its site, until it was let go
    Column("ending", String(8), nullable=False, default=""),  # "" | move | preempt | peer: the engine takes it back
    _at("ending_at"),
    Column("ending_note", Text, nullable=False, default=""),
    Column(
        "grace_seconds", Integer, nullable=False, default=0
    ),  # to save its state when preempted; 0 = not preemptible
    Column("due_at", Double, nullable=False, default=0.0),  # not handled before
    Column("tries", Integer, nullable=False, default=0),  # handlings that failed in a row
    Column("negatives", Integer, nullable=False, default=0),  # authoritative "not there" answers in a row
    _at("last_negative_at"),
    _at("unseen_since"),
    Column("predicted_seconds", Double),
    Column("usage_state", String(8), nullable=False, default="none"),  # none | due | done | lost
    Column("clean_state", String(8), nullable=False, default="none"),  # none | due | done
    Column("stdout_blob", String(64), nullable=False, default=""),
    Column("stderr_blob", String(64), nullable=False, default=""),
    Column("observed", Text, nullable=False, default="{}"),  # JSON of the last port.Observation
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    _at("submitted_at"),
    _at("started_at"),
    _at("ended_at"),
)
# As the partial indexes have it: a query that uses them says it in these words, since bound values would hide it.
LIVE = "state NOT IN ('succeeded', 'failed', 'cancelled', 'lost')"
Index(
    "ix_attempts_live",
    attempts.c.site,
    attempts.c.state,
    attempts.c.due_at,
    sqlite_where=text(LIVE),
    postgresql_where=text(LIVE),
)
Index(
    "ix_attempts_preemptible",
    attempts.c.site,
    sqlite_where=text(f"grace_seconds > 0 AND {LIVE}"),
    postgresql_where=text(f"grace_seconds > 0 AND {LIVE}"),
)
AFTER = "usage_state = 'due' OR clean_state = 'due'"
Index("ix_attempts_after", attempts.c.site, attempts.c.due_at, sqlite_where=text(AFTER), postgresql_where=text(AFTER))

outputs = Table(
    "outputs",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("path", String(4096), primary_key=True),
    Column("attempt", _Key, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("executable", Boolean, nullable=False, default=False),
    Column("url", Text, nullable=False, default=""),  # where else it was delivered
)

checkpoints = Table(  # what a preempted attempt saved, for the next one
    "checkpoints",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("path", String(4096), primary_key=True),
    Column("attempt", _Key, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("executable", Boolean, nullable=False, default=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("attempt", String(26), primary_key=True),  # empty: the last round that could not place it
    _at("decided_at", nullable=False),
    Column("body", Text, nullable=False),  # JSON domain.placement.Receipt
)

usage_records = Table(
    "usage_records",
    metadata,
    Column("attempt", _Key, primary_key=True),  # exactly one for each attempt
    Column("task_id", _Key, nullable=False, index=True),
    Column("project", _Name, nullable=False),
    Column("user", _Name, nullable=False),
    Column("site", _Name, nullable=False),
    Column("pool", String(255), nullable=False),
    Column("account", String(255), nullable=False),
    Column("source", String(16), nullable=False),
    Column("native_id", String(255), nullable=False),
    Column("native_state", String(64), nullable=False),
    _at("started_at"),
    _at("ended_at"),
    Column("elapsed_seconds", BigInteger, nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("accelerators", Integer, nullable=False),
    Column("cpu_seconds", Double, nullable=False),
    Column("allocated_cpu_seconds", BigInteger, nullable=False),
    Column("max_rss_bytes", BigInteger, nullable=False),
    Column("read_bytes", BigInteger, nullable=False),
    Column("written_bytes", BigInteger, nullable=False),
    Column("charge", String(40), nullable=False),
    Column("energy_kwh", String(40)),  # null where no power was declared
    Column("carbon_grams", String(40)),  # null where no power or no intensity was declared
    _at("created_at", nullable=False),
)
Index("ix_usage_records_created", usage_records.c.created_at, usage_records.c.attempt)
Index("ix_usage_records_site", usage_records.c.site, usage_records.c.created_at)
Index("ix_usage_records_project", usage_records.c.project, usage_records.c.created_at)

outcomes = Table(  # forecasts of receipts beside what came of them; the last 30 days
    "outcomes",
    metadata,
    Column("attempt", _Key, primary_key=True),
    Column("kind", String(8), primary_key=True),  # wait | runtime | finish
    Column("site", _Name, nullable=False),
    Column("pool", String(255), nullable=False),
    Column("source", String(16), nullable=False),
    _at("at", nullable=False),  # when its usage record was made
    Column("predicted_seconds", Double, nullable=False),
    Column("actual_seconds", Double, nullable=False),
    Column("score", Double, nullable=False),  # 0 to 1; see engine.scoring
    Column("within_80", Integer),  # 1: from p10 to p90; null where it had no quantiles
    Column("below_90", Integer),
    Column("below_95", Integer),
)
Index("ix_outcomes_at", outcomes.c.at)

models = Table(  # what each model publishes of its forecasts of the last 30 days
    "models",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("site", _Name, primary_key=True),
    Column("pool", String(255), primary_key=True),
    Column("source", String(16), primary_key=True),
    Column("outcomes", Integer, nullable=False),
    Column("accuracy", Double, nullable=False),  # mean score
    Column("error_seconds", Double, nullable=False),  # mean of what they were off
    Column("coverage_80", Double),
    Column("coverage_90", Double),
    Column("coverage_95", Double),
    _at("since", nullable=False),
    _at("updated_at", nullable=False),
)

blobs = Table(  # which project may read which content
    "blobs",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    _at("created_at", nullable=False),
)

# --- data -----------------------------------------------------------------------------------------------------------

contents = Table(  # content of datasets that the service itself keeps: its BLAKE3, and the blob that has it
    "contents",
    metadata,
    Column("blake3", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("owner", _Name, nullable=False),
    Column("sensitivity", _Name, nullable=False, default=""),
    Column("regions", Text, nullable=False, default="[]"),  # JSON: regions that no replica may leave; none = anywhere
    Column("newest", Integer, nullable=False, default=0),  # version
    Column("made", Integer, nullable=False, default=0),  # the highest version ever: a number is given once
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("manifest", String(64), nullable=False, index=True),  # BLAKE3 of domain.dataset.DatasetManifest
    Column("manifest_sha256", String(64), nullable=False),  # the blob that holds it
    Column("files", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_by", _Name, nullable=False),
    Column("task_id", String(26), nullable=False, default="", index=True),  # that made it
    _at("created_at", nullable=False),
)

task_data = Table(  # versions that a task takes in
    "task_data",
    metadata,
    Column("task_id", _Key, primary_key=True),
    Column("project", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("version", Integer, primary_key=True),
)
Index("ix_task_data_version", task_data.c.project, task_data.c.name, task_data.c.version)

replicas = Table(
    "replicas",
    metadata,
    Column("project", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("site", _Name, primary_key=True),  # domain.dataset.HOME for the service itself
    Column("manifest", String(64), nullable=False),  # BLAKE3; what is to be dropped when the version is forgotten
    Column("manifest_sha256", String(64), nullable=False, default=""),  # the blob that holds it
    Column("state", String(8), nullable=False),  # domain.dataset.ReplicaState
    Column("tier", String(8), nullable=False, default="warm"),
    Column("pinned", Boolean, nullable=False, default=False),
    Column("pinned_by", _Name, nullable=False, default=""),
    Column(
        "cached", Boolean, nullable=False, default=False
    ),  # came for a task's sake, not because somebody wanted it here
    Column("limits_due", Boolean, nullable=False, default=False),  # its site is to be told the dataset's new regions
    Column("in_place", Boolean, nullable=False, default=False),  # somebody's own files, which take no room of the keep
    Column("size_bytes", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False, default=0),
    Column("heat", Double, nullable=False, default=0.0),  # uses that fade; see data.lifecycle
    _at("heat_at"),
    _at("used_at"),
    _at("created_at", nullable=False),
    _at("whole_at"),
)
Index("ix_replicas_site", replicas.c.site, replicas.c.state)
Index("ix_replicas_limits", replicas.c.site, sqlite_where=text("limits_due"), postgresql_where=text("limits_due"))
_LEAVING = "state = 'leaving'"
Index("ix_replicas_leaving", replicas.c.site, sqlite_where=text(_LEAVING), postgresql_where=text(_LEAVING))

transfers = Table(
    "transfers",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("project", _Name, nullable=False),
    Column("name", _Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("source", _Name, nullable=False, default=""),  # empty: not chosen yet
    Column("target", _Name, nullable=False),
    Column("state", String(12), nullable=False),  # domain.dataset.TransferState
    Column("fence", Integer, nullable=False, default=0),  # grows with each order that is sent
    Column("through", String(32), nullable=False, default=""),  # direct | relay | service; empty until it moves
    Column("relay", _Name, nullable=False, default=""),  # the site whose relay carries it
    Column("multipath", Boolean, nullable=False, default=False),  # it goes over MPTCP, as its site says
    Column(
        "ways", Text, nullable=False, default="[]"
    ),  # JSON: domain.dataset.WayTaken, those of the last order at the end
    Column("links", Text, nullable=False, default="[]"),  # JSON: the path that was promised, in travelling order
    Column("stretches", Text, nullable=False, default="[]"),  # JSON: the window, domain.roads.Stretch
    Column("bytes_per_second", Double, nullable=False, default=0.0),  # as measured lately
    Column("most_bytes_per_second", Double, nullable=False, default=0.0),  # what its user allows; 0 = no bound
    Column("size_bytes", BigInteger, nullable=False),
    Column("done_bytes", BigInteger, nullable=False, default=0),
    _at("ends_at"),  # predicted
    _at("wanted_by"),  # it was promised to be there by then
    Column("cached", Boolean, nullable=False, default=False),
    Column("task_id", String(26), nullable=False, default=""),  # that it moves for
    Column("created_by", _Name, nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("tries", Integer, nullable=False, default=0),
    Column("due_at", Double, nullable=False, default=0.0),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    _at("started_at"),
    _at("ended_at"),
)
_OPEN = "state IN ('planned', 'moving')"
Index(  # one version comes to one place by one transfer at a time
    "ix_transfers_open",
    transfers.c.target,
    transfers.c.project,
    transfers.c.name,
    transfers.c.version,
    unique=True,
    sqlite_where=text(_OPEN),
    postgresql_where=text(_OPEN),
)
_FOR_TASK = "task_id != ''"
Index("ix_transfers_task", transfers.c.task_id, sqlite_where=text(_FOR_TASK), postgresql_where=text(_FOR_TASK))
Index("ix_transfers_version", transfers.c.project, transfers.c.name, transfers.c.version)

data_servers = Table(  # sites whose agent keeps data, as it announced itself
    "data_servers",
    metadata,
    Column("site", _Name, primary_key=True),
    Column("address", String(255), nullable=False, default=""),  # HOST:PORT; empty: it cannot be dialled
    Column("quota_bytes", BigInteger, nullable=False, default=0),  # 0 = no bound but the disk's
    Column("free_bytes", BigInteger, nullable=False, default=0),
    Column("cold", Boolean, nullable=False, default=False),  # has a slow store
    Column(
        "cold_region", _Name, nullable=False, default="@site"
    ),  # in which that lies; empty: nobody knows; @site: where the site is
    Column("relay", String(255), nullable=False, default=""),  # HOST:PORT of its relay for others; empty: it has none
    Column("multipath", Boolean, nullable=False, default=False),  # its kernel has MPTCP
    Column("certificate", Text, nullable=False, default=""),  # PEM, public
    _at("seen_at", nullable=False),
)

# --- network ----------------------------------------------------------------------------------------------------------

net_nodes = Table(  # the sites and routers that operators declared
    "net_nodes",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("kind", String(8), nullable=False),  # domain.network.NodeKind
    Column("body", Text, nullable=False),  # JSON domain.network.NetNode
    Column("declared_by", _Name, nullable=False),
    _at("declared_at", nullable=False),
)

net_links = Table(
    "net_links",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("one_end", _Name, nullable=False),
    Column("other_end", _Name, nullable=False),
    Column("body", Text, nullable=False),  # JSON domain.network.NetLink
    Column("declared_by", _Name, nullable=False),
    _at("declared_at", nullable=False),
)

net_operators = Table(  # users that may declare the network, beside the administrators
    "net_operators",
    metadata,
    Column("user", _Name, primary_key=True),
)

net_policies = Table(  # which way packets shall go, for a transfer or a task, or because an operator said so
    "net_policies",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("source", _Name, nullable=False),
    Column("target", _Name, nullable=False),
    Column("nodes", Text, nullable=False),  # JSON list: the path that is wanted now, end to end
    Column("match", Text, nullable=False),  # JSON network.control.desired.Match: the marks of its packets
    Column("owner", String(8), nullable=False),  # transfer | task | operator
    Column("slice_dscp", Integer, nullable=False, default=0),  # written into the outer header; 0 = in no slice
    Column("wanted", Boolean, nullable=False, default=True),  # false: its routers forget it, then the row goes
    Column("error", Text, nullable=False, default=""),  # why its routers do not have it
    _at("programmed_at"),  # since when its routers have it as it is here
    _at("moved_at"),  # when a failure took it to another path
    _at("created_at", nullable=False),
)

net_slices = Table(  # rates of links that a project, or a class of packets, has for sure
    "net_slices",
    metadata,
    Column("name", _Name, primary_key=True),
    Column(
        "project", _Name, nullable=False, default=""
    ),  # whose transfers are in it; empty: only packets with the mark
    Column("dscp", Integer, nullable=False),
    Column("bits_per_second", Double, nullable=False),
    Column("links", Text, nullable=False),  # JSON list of names
    Column("wanted", Boolean, nullable=False, default=True),  # false: its routers forget it, then the row goes
    Column("error", Text, nullable=False, default=""),
    _at("programmed_at"),
    Column("created_by", _Name, nullable=False),
    _at("created_at", nullable=False),
)
Index("ix_net_slices_dscp", net_slices.c.dscp, unique=True)

link_states = Table(  # measured figures, the newest of each source
    "link_states",
    metadata,
    Column("source", _Name, primary_key=True),  # from this node
    Column("target", _Name, primary_key=True),  # to that one
    Column("link", _Name, primary_key=True),  # over this link; empty: over whatever way packets take by themselves
    Column("metric", String(32), primary_key=True),  # domain.network.Metric
    Column("origin", String(16), primary_key=True),  # domain.network.Source
    Column("value", Double, nullable=False),
    Column("error", Double, nullable=False),
    _at("measured_at", nullable=False),
    _at("since"),  # of `up`: when it became so
    Column("watched", Text, nullable=False, default=""),  # JSON network.measurement.change.Watched
)

# --- running the service ----------------------------------------------------------------------------------------------

events = Table(
    "events",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    _at("at", nullable=False),
    Column("kind", String(32), nullable=False),  # task.STATE, attempt.STATE, site.STATE, ...
    Column("project", _Name, nullable=False, default=""),
    Column("task_id", String(26), nullable=False, default=""),
    Column("attempt", String(26), nullable=False, default=""),
    Column("site", _Name, nullable=False, default=""),
    Column("body", Text, nullable=False, default="{}"),
    sqlite_autoincrement=True,
)
Index("ix_events_task", events.c.task_id, events.c.seq)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user", _Name, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    _at(
        "created_at",
        nullable=False,
    ),
)

leases = Table(  # singletons: the placement round, the observer of a site
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("token", BigInteger, nullable=False),  # only grows
    Column("until", Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    _at("at", nullable=False),
    Column("user", _Name, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("body", Text, nullable=False, default="{}"),
    sqlite_autoincrement=True,
)

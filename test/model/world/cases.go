package world

// A CacheCase is an ablation of a Cache.
type CacheCase struct {
	Ablation
	Bounds Bounds
}

// Small worlds in which the ablations are tried.
var (
	dropping    = Bounds{Name: "drops", Changes: "c", Readers: 2, Window: 1, Clock: true, Evicts: true, Writer: true}
	setting     = Bounds{Name: "sets", Sets: true, Changes: "cc", Readers: 2, Window: 1, Clock: true, Writer: true}
	doubting    = Bounds{Name: "sets and deletes", Sets: true, Changes: "dcc", Readers: 1, Window: 1}
	losing      = Bounds{Name: "drops, and a replica that takes over", Changes: "co", Readers: 1, Window: 1, Failovers: 1}
	changing    = Bounds{Name: "drops, and another instance", Changes: "cc", Readers: 1, Window: 2, Copies: true, Takeovers: 1}
	resetting   = Bounds{Name: "sets, and a Redis that forgets", Sets: true, Changes: "cc", Readers: 1, Window: 2, Copies: true, Takeovers: 1, Flushes: 1}
	sweeping    = Bounds{Name: "a sweep, and another instance", Changes: "t", Readers: 1, Window: 1, Clock: true, Takeovers: 1}
	passing     = Bounds{Name: "a sweep", Changes: "to", Readers: 2, Window: 1, Clock: true}
	resweeping  = Bounds{Name: "a sweep, and a replica that takes over", Changes: "to", Readers: 1, Window: 1, Failovers: 1}
	setsweeping = Bounds{Name: "a sweep where changes are SET", Sets: true, Changes: "ctc", Readers: 2, Window: 1, Clock: true}
	naming      = Bounds{Name: "sweeps by names", Names: true, Changes: "ttt", Readers: 1, Window: 1}
	sparing     = Bounds{Name: "a sweep of another part, and one by names", Names: true, Changes: "pt", Readers: 1, Window: 1}
	losingNames = Bounds{Name: "sweeps by names, and a replica that takes over", Names: true, Changes: "t", Readers: 1, Window: 1, Failovers: 1}
	looking     = Bounds{Name: "lookups", Changes: "lm", Readers: 1, Window: 1, Takeovers: 1}
	fanning     = Bounds{Name: "a fan-out", Changes: "fm", Readers: 1, Window: 1, Takeovers: 1}
	consuming   = Bounds{Name: "a topic", Kafka: true, Resends: 1, Sets: true, Changes: "cc", Readers: 1, Window: 1}
	restoring   = Bounds{Name: "an initial snapshot", Kafka: true, Snapshot: true, Keeps: true, Sets: true, Changes: "cc", Readers: 1, Writer: true, Window: 1}
)

// CacheCases are the ablations of a Cache.
var CacheCases = []CacheCase{
	{Ablation{Name: "gate", Says: "a change is applied when it arrives, visible or not", Without: Gate}, dropping},
	{Ablation{Name: "lease", Says: "a fill asks for no lease", Patches: []Patch{{"fill",
		"if not side or string.sub(side, 18) ~= ARGV[1] then return 'REFUSED' end",
		"if not side or #side < 18 then side = (side or '\\1\\0\\0\\0\\0\\0\\0\\0\\0') .. string.rep('\\127', 8) end"}}}, dropping},
	{Ablation{Name: "drop-ends-lease", Says: "a drop leaves the side key", Without: DropEndsLease}, dropping},
	{Ablation{Name: "forget-ends-lease", Says: "a drop that keeps h leaves the lease", Patches: []Patch{{"apply",
		"for i = 1, forgets do unlease(ARGV[forgetAt + forgets + i], side[i]) end", ""}}}, doubting},
	{Ablation{Name: "forget-keeps-h", Says: "a drop forgets h", Patches: []Patch{{"apply",
		"for i = 1, forgets do unlease(ARGV[forgetAt + forgets + i], side[i]) end",
		"for i = 1, forgets do redis.call('UNLINK', ARGV[forgetAt + forgets + i]) end"}}}, doubting},
	{Ablation{Name: "set-ends-lease", Says: "a SET leaves the lease", Patches: []Patch{{"apply",
		"local h = unlease(ARGV[stringAt + strings + i], side[i])",
		"local h = side[i] and string.sub(side[i], 2, 9) or zero"}}}, setting},
	{Ablation{Name: "order-above-h", Says: "a change is SET whatever h says", Patches: []Patch{{"apply",
		"if late or not newer(ARGV[stringAt + 3 * strings + i], h) then", "if late then"}}}, setting},
	{Ablation{Name: "shield", Says: "a reader leaves no h", Without: Shield}, setting},
	{Ablation{Name: "position-behind-load", Says: "a reader asks for H before it loads", Without: PositionBehind}, setting},
	{Ablation{Name: "young", Says: "a change is SET however old it is", Without: Young}, setting},
	{Ablation{Name: "until", Says: "a batch SETs however late it arrives", Patches: []Patch{{"apply",
		"local late = reply[2] > tonumber(ARGV[10])", "local late = false"}}}, setting},
	{Ablation{Name: "begin-keeps-h", Says: "begin forgets h", Patches: []Patch{{"begin",
		"local h = side and string.sub(side, 2, 9) or", "local h ="}}}, setting},
	{Ablation{Name: "wait", Says: "begin gives a lease while another's is live", Patches: []Patch{{"begin",
		"if left > 0 then return {'WAIT', left} end", ""}}}, dropping},
	{Ablation{Name: "writer-ends-lease", Says: "the writer's own drop leaves the lease", Patches: []Patch{{"invalidate",
		"redis.call('DEL', KEYS[2])", ""}}}, dropping},
	{Ablation{Name: "writer-raises-h", Says: "the writer's own drop leaves h as it was", Patches: []Patch{{"invalidate",
		"if ah > bh or (ah == bh and al > bl) then h = ARGV[1] end", ""}}}, setting},
	{Ablation{Name: "writer-keeps-greater-h", Says: "the writer's own drop leaves its H, even where h is greater", Patches: []Patch{{"invalidate",
		"if ah > bh or (ah == bh and al > bl) then h = ARGV[1] end", "h = ARGV[1]"}}}, Bounds{Name: "sets, and a writer that is late", Sets: true, Changes: "ccc", Readers: 1, Window: 1, Writer: true}},
	{Ablation{Name: "loader-waits", Says: "the service's own loads leave no shield, however far the stream is", Without: LoaderWaits},
		Bounds{Name: "sets, and loads", Sets: true, Changes: "cc", Readers: 1, Loader: true, Window: 1, Clock: true}},

	{Ablation{Name: "owner", Says: "a batch asks for no owner", Patches: []Patch{{"apply",
		"if w[1] ~= ARGV[1] then", "if false then"}}}, changing},
	{Ablation{Name: "owners-differ", Says: "every session calls itself the same", Without: OwnersDiffer}, changing},
	{Ablation{Name: "lost", Says: "a batch does not ask whether the one before is there", Patches: []Patch{{"apply",
		"if tonumber(w[3]) < n - 1 then return {'LOST'} end", ""}}}, losing},
	{Ablation{Name: "done", Says: "a batch that is in is applied again", Patches: []Patch{{"apply",
		"if tonumber(w[3]) >= n then return {'DONE'} end", ""}}}, resetting},
	{Ablation{Name: "n-begins-anew", Says: "own leaves n as it was", Patches: []Patch{{"own",
		", 'n', 0)", ", 'n', redis.call('HGET', KEYS[1], 'n') or 0)"}}}, changing},
	{Ablation{Name: "epoch", Says: "own leaves the epoch as it was", Patches: []Patch{{"own",
		"'epoch', 1)", "'epoch', 0)"}}, Unneeded: "the owner is random, so nobody is taken for another; the epoch only tells LOST from FENCED, and both call for own"}, changing},
	{Ablation{Name: "resume-from-lo", Says: "a session goes on where the one before stood", Without: ResumeFromLo}, losing},
	{Ablation{Name: "first-delivery", Says: "what was delivered before is SET again", Without: FirstDelivery}, resetting},
	{Ablation{Name: "target-behind-own", Says: "the log's position is asked before own", Without: TargetBehindOwn}, resetting},
	{Ablation{Name: "no-watermark-is-a-gap", Says: "a Redis without a watermark is as good as any", Without: SweepWhatIsUnknown, Unneeded: "the slot is ahead of a watermark that is not there: the same gap"},
		Bounds{Name: "drops, a Redis that forgets", Changes: "cc", Readers: 1, Window: 1, Flushes: 1}},
	{Ablation{Name: "slot-ahead-is-a-gap", Says: "a slot that is ahead of Redis is as good as any", Without: GapIsSwept},
		Bounds{Name: "drops, a slot made anew", Changes: "c", Readers: 1, Window: 1, Recreations: 1}},
	{Ablation{Name: "durable-first", Says: "the slot is told what Redis may still lose", Without: DurableFirst, Unneeded: "the slot is then ahead of Redis, and that is a gap: everything is swept where a replay would do"}, losing},
	{Ablation{Name: "durable-first-and-gap", Says: "the slot is told what Redis may still lose, and may be ahead of Redis", Without: DurableFirst | GapIsSwept}, losing},

	{Ablation{Name: "probe", Says: "nobody looks for the watermark while nothing is written", Without: Probe}, losing},

	{Ablation{Name: "sweep-noted", Says: "the watermark does not say that a sweep is pending", Without: SweepIsNoted}, sweeping},
	{Ablation{Name: "settled-waits", Says: "settled moves before the sweep has ended", Without: SettledWaits}, passing},
	{Ablation{Name: "sweep-twice", Says: "a sweep makes one pass", Without: SweepsTwice}, passing},
	{Ablation{Name: "sweep-side-keys", Says: "a sweep leaves the side keys", Without: SweepsSideKeys}, passing},
	{Ablation{Name: "sweep-passes-are-whole", Says: "the first pass of a sweep drops side keys only, the second values only", Without: PassesAreWhole,
		Unneeded: "the first pass ends leases, and what was filled before that is there for the second; whole passes only drop sooner"}, passing},
	{Ablation{Name: "sweep-ends-lease", Says: "a sweep of an entry that SETs leaves leases", Patches: []Patch{{"forget",
		"elseif #side > 9 then", "elseif false then"}, {"forget", "redis.call('DEL', KEYS[2])", ""}}}, setsweeping},
	{Ablation{Name: "sweep-keeps-h", Says: "a sweep of an entry that SETs forgets h", Patches: []Patch{{"forget",
		"if string.sub(side, 2, 9) == '\\0\\0\\0\\0\\0\\0\\0\\0' then", "if true then"}}},
		Bounds{Name: "a sweep before changes that are SET", Sets: true, Changes: "tcc", Readers: 1, Window: 1}},
	{Ablation{Name: "begin-names", Says: "a lease names no key", Patches: []Patch{{"begin", "redis.call('SADD', KEYS[3], KEYS[1])", ""}}}, naming},
	{Ablation{Name: "names-go-with-keys", Says: "a sweep drops a key, and its name a moment later", Without: NamesGoTogether}, naming},
	{Ablation{Name: "seal-is-asked", Says: "a sweep goes by the names that there are", Without: SealIsAsked}, naming},
	{Ablation{Name: "seal-stands", Says: "nobody asks whether the names were complete until the end", Without: SealStands}, naming},
	{Ablation{Name: "seal-behind-draft", Says: "names are complete whatever became of the draft", Patches: []Patch{{"seal",
		"redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1", "true"}}}, naming},
	{Ablation{Name: "passes-name", Says: "what a sweep of another part leaves gets no name", Without: PassesName}, sparing},
	{Ablation{Name: "seals-last", Says: "names are complete before anybody asks whether Redis has restarted", Without: SealsLast}, losingNames},
	{Ablation{Name: "lookups-settle-later", Says: "a change whose keys were looked up is settled at once", Without: LookupsSettleLater}, looking},
	{Ablation{Name: "lookups-outlive", Says: "a new session settles what the one before it had looked up", Without: LookupsOutlive}, looking},
	{Ablation{Name: "lookups-await-drops", Says: "a change whose keys were looked up is settled when the stream has passed the lookup, though what it passed is to be swept", Without: LookupsAwaitDrops},
		Bounds{Name: "a lookup, and a sweep", Changes: "lt", Readers: 1, Window: 1}},
	{Ablation{Name: "lookups-await-lookups", Says: "what a lookup relies on may rely on another one, and nobody waits for that", Without: LookupsAwaitLookups},
		Bounds{Name: "lookups through rows that move", Changes: "lkm", Readers: 1, Window: 1}},
	{Ablation{Name: "seen-behind-lookup", Says: "the place that the stream must pass is asked before the lookup", Without: SeenBehindLookup}, fanning},
	{Ablation{Name: "fan-out-noted", Says: "the watermark does not say that a fan-out goes on", Without: FanOutIsNoted}, fanning},
	{Ablation{Name: "fan-out-holds-settled", Says: "settled moves beside a fan-out", Without: FanOutHoldsSettled}, fanning},
	{Ablation{Name: "fan-out-ends-behind", Says: "the end of a fan-out is noted before its last keys", Without: FanOutEndsBehind}, fanning},
	{Ablation{Name: "unlinked-again", Says: "of a batch that is sent again the keys that a fan-out has found are not", Without: UnlinkedAgain},
		Bounds{Name: "a fan-out, and a replica that takes over", Changes: "f", Readers: 1, Window: 1, Failovers: 1}},
	{Ablation{Name: "fan-out-settles-later", Says: "a change whose keys a fan-out has found is settled at its end", Without: LookupsSettleLater}, fanning},
	{Ablation{Name: "seen-once", Says: "a record that the connector sends again is SET again", Without: SeenOnce}, consuming},
	{Ablation{Name: "loader-over-topics", Says: "the service's own loads leave no shield over Kafka either", Without: LoaderWaits},
		Bounds{Name: "a topic, and loads", Kafka: true, Cuts: true, Sets: true, Cached: true, Changes: "cc", Readers: 1, Loader: true, Window: 1}},
	{Ablation{Name: "target-is-of-the-log", Says: "a session over Kafka takes all behind the end of the topic for new", Without: TargetIsOfTheLog},
		Bounds{Name: "a topic, and a Redis that forgets", Kafka: true, Sets: true, Changes: "cc", Readers: 1, Window: 1, Flushes: 1}},
	{Ablation{Name: "snapshot-yields", Says: "a row of the initial snapshot is SET over what is there", Patches: []Patch{{"apply",
		"if redis.call('UNLINK', key) == 0 and not side[i] and string.sub(ttl, 1, 1) ~= '-' then", "redis.call('UNLINK', key)\n      if true then"}}}, restoring},
	{Ablation{Name: "snapshot-minds-side-key", Says: "a row of the initial snapshot is SET where a side key is", Patches: []Patch{{"apply", "and not side[i] and string.sub(ttl", "and string.sub(ttl"}}}, restoring},
	{Ablation{Name: "marker", Says: "no batch is written behind what a sweep has dropped", Without: MarkerBehind}, resweeping},
	{Ablation{Name: "run-id", Says: "nobody asks whether Redis has changed during a sweep", Without: RunID}, resweeping},
}

// A Configuration is a world in which every rule holds and every promise must.
type Configuration struct {
	Part   string // of docs/proof.md
	Bounds Bounds
	// Small is what the tests explore.
	Small Bounds
}

// CacheConfigurations are those of a Cache.
var CacheConfigurations = []Configuration{
	configuration("readers", Bounds{Name: "drops", Changes: "ccc", Readers: 2, Writer: true, Clock: true, Evicts: true, Full: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Window = "cc", 1 }),
	configuration("readers", Bounds{Name: "drops, with the service's loads", Changes: "cc", Readers: 3, Loader: true, Clock: true, Evicts: true, Window: 1, Copies: true},
		func(b *Bounds) { b.Changes = "c" }),
	configuration("readers", Bounds{Name: "sets", Sets: true, Changes: "cdc", Readers: 2, Writer: true, Clock: true, Full: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Window = "cc", 1 }),
	configuration("readers", Bounds{Name: "sets, with the service's loads", Sets: true, Changes: "cdc", Readers: 3, Writer: true, Loader: true, Clock: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes = "cc" }),
	configuration("readers", Bounds{Name: "sets, and side keys are evicted", Sets: true, Changes: "cdc", Readers: 2, Writer: true, Loader: true, Clock: true, Evicts: true, Window: 1, Copies: true},
		func(b *Bounds) { b.Changes = "cc" }),
	configuration("readers", Bounds{Name: "sets what is cached, as hashes", Sets: true, Cached: true, Hash: true, Changes: "cdc", Readers: 2, Writer: true, Clock: true, Full: true, Window: 1, Copies: true},
		func(b *Bounds) { b.Changes = "cc" }),
	configuration("losses", Bounds{Name: "drops, a failover, instance after instance", Changes: "co", Readers: 2, Window: 2, Copies: true, Takeovers: Always, Failovers: 1},
		func(b *Bounds) { b.Readers, b.Window, b.Takeovers = 1, 1, 1 }),
	configuration("losses", Bounds{Name: "drops, a FLUSHALL, a slot made anew", Changes: "co", Readers: 2, Evicts: true, Window: 2, Copies: true, Takeovers: 1, Flushes: 1, Recreations: 1},
		func(b *Bounds) { b.Readers, b.Window = 1, 1 }),
	configuration("losses", Bounds{Name: "drops, a FLUSHALL and a failover", Changes: "co", Readers: 1, Window: 1, Takeovers: 1, Flushes: 1, Failovers: 1},
		func(b *Bounds) { b.Changes, b.Takeovers = "c", 0 }),
	configuration("losses", Bounds{Name: "sets, a failover", Sets: true, Changes: "cc", Readers: 2, Writer: true, Window: 2, Copies: true, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Readers, b.Window, b.Writer = 1, 1, false }),
	configuration("losses", Bounds{Name: "sets, FLUSHALLs", Sets: true, Changes: "cc", Readers: 1, Writer: true, Window: 1, Copies: true, Takeovers: 1, Flushes: 2},
		func(b *Bounds) { b.Takeovers, b.Flushes = 0, 1 }),
	configuration("losses", Bounds{Name: "sets, the service's loads, a FLUSHALL", Sets: true, Changes: "cc", Readers: 2, Loader: true, Window: 1, Takeovers: 1, Flushes: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("losses", Bounds{Name: "sets, the service's loads, a failover", Sets: true, Changes: "cc", Readers: 2, Loader: true, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("sweeps", Bounds{Name: "a sweep beside fills", Changes: "tct", Readers: 2, Clock: true, Evicts: true, Window: 2, Copies: true},
		func(b *Bounds) {}),
	configuration("sweeps", Bounds{Name: "a sweep beside fills, where changes are SET", Sets: true, Changes: "ctc", Readers: 2, Clock: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Window = "ct", 1 }),
	configuration("sweeps", Bounds{Name: "a sweep, a failover", Changes: "to", Readers: 1, Clock: true, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Changes, b.Clock = "t", false }),
	configuration("sweeps", Bounds{Name: "a sweep, a FLUSHALL", Changes: "to", Readers: 2, Clock: true, Window: 1, Takeovers: 1, Flushes: 1},
		func(b *Bounds) { b.Changes, b.Readers = "t", 1 }),
	configuration("sweeps", Bounds{Name: "a sweep where changes are SET, a failover", Sets: true, Changes: "tc", Readers: 1, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("sweeps", Bounds{Name: "sweeps by names", Names: true, Changes: "ttt", Readers: 2, Clock: true, Evicts: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Readers, b.Window = "tt", 1, 1 }),
	configuration("sweeps", Bounds{Name: "sweeps of parts by names", Names: true, Changes: "ptt", Readers: 2, Clock: true, Evicts: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Readers, b.Window = "pt", 1, 1 }),
	configuration("sweeps", Bounds{Name: "sweeps of parts by names, a failover", Names: true, Changes: "pt", Readers: 1, Window: 1, Failovers: 1},
		func(b *Bounds) {}),
	configuration("sweeps", Bounds{Name: "sweeps by names, a failover", Names: true, Changes: "tt", Readers: 1, Window: 1, Failovers: 1},
		func(b *Bounds) {}),
	configuration("sweeps", Bounds{Name: "sweeps by names, a FLUSHALL", Names: true, Changes: "tt", Readers: 1, Window: 1, Flushes: 1},
		func(b *Bounds) {}),
	configuration("sweeps", Bounds{Name: "sweeps by names, another instance", Names: true, Changes: "tt", Readers: 1, Window: 1, Takeovers: 1},
		func(b *Bounds) {}),
	configuration("stalls", Bounds{Name: "batches held up, shields that expire", Sets: true, Changes: "ccc", Readers: 2, Clock: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Readers = "cc", 1 }),
	configuration("stalls", Bounds{Name: "batches held up, another instance", Sets: true, Changes: "cc", Readers: 1, Writer: true, Clock: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Window, b.Writer = 1, false }),
	configuration("kafka", Bounds{Name: "records that come again", Kafka: true, Resends: 1, Sets: true, Changes: "cdc", Readers: 2, Writer: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Window = "cc", 1 }),
	configuration("kafka", Bounds{Name: "records that come again, a failover", Kafka: true, Resends: 1, Sets: true, Changes: "cc", Readers: 1, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("kafka", Bounds{Name: "records that come again, a FLUSHALL", Kafka: true, Resends: 1, Sets: true, Changes: "cc", Readers: 1, Window: 1, Takeovers: 1, Flushes: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("kafka", Bounds{Name: "sets what is cached, or loads it again", Kafka: true, Cuts: true, Resends: 1, Sets: true, Cached: true, Changes: "cdc", Readers: 2, Loader: true, Writer: true, Full: true, Window: 2, Copies: true},
		func(b *Bounds) { b.Changes, b.Window = "cc", 1 }),
	configuration("kafka", Bounds{Name: "an initial snapshot", Kafka: true, Snapshot: true, Keeps: true, Sets: true, Changes: "cdc", Readers: 2, Writer: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Changes, b.Takeovers = "cc", 0 }),
	configuration("lookups", Bounds{Name: "lookups later than their change", Changes: "lml", Readers: 2, Writer: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Changes, b.Window = "lm", 1 }),
	configuration("lookups", Bounds{Name: "lookups, a failover", Changes: "lm", Readers: 1, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("lookups", Bounds{Name: "lookups, a FLUSHALL, with the service's loads", Changes: "lm", Readers: 2, Loader: true, Window: 1, Takeovers: 1, Flushes: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("lookups", Bounds{Name: "lookups beside a sweep", Changes: "ltl", Readers: 2, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Changes, b.Readers, b.Window = "lt", 1, 1 }),
	configuration("lookups", Bounds{Name: "lookups through rows that move", Changes: "lkm", Readers: 2, Writer: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Readers, b.Window = 1, 1 }),
	configuration("lookups", Bounds{Name: "a fan-out through rows that move", Changes: "fkm", Readers: 1, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Window, b.Copies = 1, false }),
	configuration("lookups", Bounds{Name: "a fan-out beside the stream", Changes: "fml", Readers: 2, Writer: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Changes, b.Window, b.Readers = "fm", 1, 1 }),
	configuration("lookups", Bounds{Name: "a fan-out, instance after instance, with the service's loads", Changes: "fm", Readers: 2, Loader: true, Window: 2, Copies: true, Takeovers: Always},
		func(b *Bounds) { b.Window, b.Takeovers = 1, 1 }),
	configuration("lookups", Bounds{Name: "a fan-out beside a sweep", Changes: "ftm", Readers: 1, Clock: true, Window: 2, Copies: true, Takeovers: 1},
		func(b *Bounds) { b.Changes, b.Clock, b.Window = "ft", false, 1 }),
	configuration("lookups", Bounds{Name: "a fan-out, a failover", Changes: "fm", Readers: 1, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
	configuration("lookups", Bounds{Name: "a fan-out, a FLUSHALL", Changes: "fm", Readers: 1, Window: 1, Takeovers: 1, Flushes: 1},
		func(b *Bounds) { b.Takeovers = 0 }),
}

func configuration(part string, b Bounds, shrink func(*Bounds)) Configuration {
	small := b
	shrink(&small)
	return Configuration{part, b, small}
}

package world

// Small worlds in which the ablations are tried.
var (
	coming   = IndexBounds{Name: "a set that is built while the product comes", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Evicts: true, Window: 1}
	going    = IndexBounds{Name: "a set that is built while the product goes", Product: "m", Renames: 1, Readers: 1, Builds: true, Evicts: true, Window: 1}
	kept     = IndexBounds{Name: "a set that is kept up", Product: "m", Away: true, Renames: 1, Readers: 1, Built: true, Window: 1}
	left     = IndexBounds{Name: "a set that the product leaves", Product: "m", Renames: 1, Readers: 1, Built: true, Window: 1}
	evicting = IndexBounds{Name: "a set that is evicted", Product: "m", Away: true, Renames: 1, Readers: 1, Built: true, Evicts: true, Window: 1}
	failing  = IndexBounds{Name: "a set that is built, and a replica that takes over", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Window: 1, Failovers: 1}
	adding   = IndexBounds{Name: "a set that is built in two parts, and a replica that takes over", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Adds: true, Window: 1, Failovers: 1}
	handing  = IndexBounds{Name: "a set that is built, and another instance", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Window: 1, Takeovers: 1}
	scanned  = IndexBounds{Name: "a large set", Renames: 1, Readers: 1, Builds: true, Built: true, Evicts: true, Large: true, Window: 1}
	carried  = IndexBounds{Name: "a large set, and a replica that takes over", Renames: 1, Readers: 1, Built: true, Large: true, Window: 1, Failovers: 1}
	untold   = IndexBounds{Name: "a move that the log does not tell", Product: "u", Away: true, Renames: 1, Readers: 1, Builds: true, Built: true, Window: 1}
	remade   = IndexBounds{Name: "a slot made anew", Product: "m", Away: true, Renames: 1, Readers: 1, Built: true, Window: 1, Recreations: 1}
)

// An IndexCase is an ablation of an Index.
type IndexCase struct {
	Ablation
	Bounds IndexBounds
}

// IndexCases are the ablations of an Index.
var IndexCases = []IndexCase{
	{Ablation{Name: "set-is-begun-first", Says: "a set is read in the database, and begun behind that", Without: SetIsBegunFirst}, coming},
	{Ablation{Name: "set-position-behind", Says: "from where on a set is complete is asked before it is read", Without: SetPositionBehind}, going},
	{Ablation{Name: "set-completes-later", Says: "a set is complete when it has what was read", Patches: []Patch{{"complete",
		"if a < b then return 'WAIT' end", ""}}}, going},
	{Ablation{Name: "complete-asks-redis", Says: "whether the stream is there is asked of the session, not of the watermark beside the set", Unneeded: "a session that goes on from before asks its gate anew, and settled then waits for all that the set can have seen", Without: CompleteAsksRedis, Patches: []Patch{{"complete",
		"if a < b then return 'WAIT' end", ""}}}, failing},
	{Ablation{Name: "additions-are-marked", Says: "nothing says of a set whether it has what was added", Without: AdditionsAreMarked, Patches: []Patch{
		{"gather", "if redis.call('SISMEMBER', KEYS[1], ARGV[2]) == 1 then return 'OK' end", ""}, {"gather", "redis.call('SREM', KEYS[1], ARGV[1])", ""}}}, failing},
	{Ablation{Name: "gather-asks-token", Says: "what was read is added to whatever set is there", Patches: []Patch{{"gather",
		"if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 'LOST' end", ""}}}, adding},
	{Ablation{Name: "complete-asks-token", Says: "whatever set is there is called complete", Patches: []Patch{{"complete",
		" or redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0", ""}}}, coming},
	{Ablation{Name: "build-asks-owner", Says: "who is no owner begins sets", Unneeded: "the next owner keeps up whatever set is there; only who has other indexes would not, and no world has that", Patches: []Patch{{"build",
		"if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 'LOST' end", ""}}}, handing},
	{Ablation{Name: "complete-asks-owner", Says: "who is no owner completes sets", Unneeded: "the next owner has kept the set up; only who has other indexes would not have, and no world has that", Patches: []Patch{{"complete",
		"w[1] ~= ARGV[1] or ", ""}}}, handing},
	{Ablation{Name: "build-replaces", Says: "a set is begun with what is there", Unneeded: "what was left in the set is too much at most; it would never get less", Patches: []Patch{{"build",
		"redis.call('UNLINK', KEYS[2])", ""}}}, coming},
	{Ablation{Name: "set-says-complete", Says: "a set answers whatever it says of itself", Patches: []Patch{{"members",
		"redis.call('SISMEMBER', set, 'complete') == 0", "set == ''"}}}, evicting},
	{Ablation{Name: "batches-add", Says: "a batch adds no member", Patches: []Patch{{"apply",
		"if redis.call('EXISTS', ARGV[i]) == 1 then edit('SADD', ARGV[i], ARGV[i + 1]) end", ""}}}, kept},
	{Ablation{Name: "batches-remove", Says: "a batch takes no member out", Unneeded: "a member too many drops a key too many", Patches: []Patch{{"apply",
		"for i = 21, addAt, 2 do edit('SREM', ARGV[i], ARGV[i + 1]) end", ""}}}, left},
	{Ablation{Name: "batches-make-no-set", Says: "a batch adds a member to a set that is not there", Unneeded: "a set that was made so never says that it is complete; it would never end", Patches: []Patch{{"apply",
		"if redis.call('EXISTS', ARGV[i]) == 1 then edit", "if true then edit"}}}, evicting},
	{Ablation{Name: "edits-go-together", Says: "what a batch does to sets comes behind it", Without: EditsGoTogether}, kept},
	{Ablation{Name: "index-settles-later", Says: "a change whose keys an index has told is settled at once", Without: IndexSettlesLater}, kept},
	{Ablation{Name: "scan-of-one-set", Says: "nobody asks whether a large set is the same when it was read", Without: ScanIsOfOneSet}, scanned},
	{Ablation{Name: "scan-of-one-process", Says: "nobody asks whether Redis has restarted while a large set was read", Without: ScanIsOfOneProcess}, carried},
	{Ablation{Name: "sets-are-swept", Says: "a sweep leaves the sets", Without: SetsAreSwept}, remade},
	{Ablation{Name: "sets-are-swept-twice", Says: "only the first pass of a sweep takes sets", Unneeded: "a set that is begun behind the first pass shows what the cause of the sweep has done", Without: SetsAreSweptTwice}, untold},
	{Ablation{Name: "swept-asks-database", Says: "sets answer while their entry is to be swept", Without: SweptIsAskedElsewhere}, untold},
}

func indexWorld(b IndexBounds, shrink func(*IndexBounds)) (c struct{ Bounds, Small IndexBounds }) {
	c.Bounds, c.Small = b, b
	shrink(&c.Small)
	return c
}

// IndexConfigurations are those of an Index.
var IndexConfigurations = []struct{ Bounds, Small IndexBounds }{
	indexWorld(IndexBounds{Name: "sets that are built, and evicted", Product: "mm", Renames: 2, Readers: 2, Builds: true, Adds: true, Evicts: true, Window: 2, Copies: true},
		func(b *IndexBounds) { b.Product, b.Readers, b.Window, b.Copies = "m", 1, 1, false }),
	indexWorld(IndexBounds{Name: "sets for a product that comes", Product: "mm", Away: true, Renames: 2, Readers: 1, Builds: true, Evicts: true, Window: 2, Copies: true},
		func(b *IndexBounds) { b.Product, b.Window, b.Copies = "m", 1, false }),
	indexWorld(IndexBounds{Name: "sets beside sweeps", Product: "um", Away: true, Renames: 2, Readers: 1, Builds: true, Built: true, Evicts: true, Window: 2, Copies: true},
		func(b *IndexBounds) { b.Product, b.Renames, b.Window, b.Copies = "u", 1, 1, false }),
	indexWorld(IndexBounds{Name: "sets beside sweeps, another instance", Product: "um", Renames: 1, Readers: 1, Builds: true, Built: true, Window: 1, Takeovers: 1},
		func(b *IndexBounds) { b.Product = "u" }),
	indexWorld(IndexBounds{Name: "sets, instance after instance", Product: "mm", Renames: 1, Readers: 1, Builds: true, Window: 1, Copies: true, Takeovers: Always},
		func(b *IndexBounds) { b.Product, b.Copies = "m", false }),
	indexWorld(IndexBounds{Name: "sets, a failover", Product: "mm", Away: true, Renames: 1, Readers: 1, Builds: true, Adds: true, Window: 1, Failovers: 1},
		func(b *IndexBounds) { b.Product = "m" }),
	indexWorld(IndexBounds{Name: "sets, a failover, another instance", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *IndexBounds) { b.Builds, b.Built = false, true }),
	indexWorld(IndexBounds{Name: "sets, a FLUSHALL, a slot made anew", Product: "m", Away: true, Renames: 1, Readers: 1, Builds: true, Built: true, Window: 1, Takeovers: 1, Flushes: 1, Recreations: 1},
		func(b *IndexBounds) { b.Takeovers, b.Builds = 0, false }),
	indexWorld(IndexBounds{Name: "sets, and one transaction for both rows", Product: "bm", Renames: 1, Readers: 1, Builds: true, Built: true, Evicts: true, Window: 2, Copies: true},
		func(b *IndexBounds) { b.Product, b.Window, b.Copies = "b", 1, false }),
	indexWorld(IndexBounds{Name: "sets, one transaction for both rows, a failover", Product: "b", Away: true, Renames: 1, Readers: 1, Built: true, Evicts: true, Window: 1, Takeovers: 1, Failovers: 1},
		func(b *IndexBounds) { b.Takeovers = 0 }),
	indexWorld(IndexBounds{Name: "large sets", Product: "mm", Renames: 1, Readers: 1, Builds: true, Built: true, Evicts: true, Large: true, Window: 2, Copies: true},
		func(b *IndexBounds) { b.Product, b.Window, b.Copies = "m", 1, false }),
	indexWorld(IndexBounds{Name: "large sets, a failover", Product: "m", Renames: 1, Readers: 1, Builds: true, Built: true, Large: true, Window: 1, Failovers: 1},
		func(b *IndexBounds) { b.Builds = false }),
}

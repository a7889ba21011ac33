package world

// A Rule of docs/protocol.md that is no line of a script.
type Rule uint64

const (
	// Gate: a change is applied when it is visible on the primary.
	Gate Rule = 1 << iota
	// PositionBehind: a reader asks for the log's position behind its load.
	PositionBehind
	// FirstDelivery: what may have been delivered before only drops.
	FirstDelivery
	// TargetBehindOwn: up to where that is, is asked behind own.
	TargetBehindOwn
	// Young: only a change that was committed lately is SET.
	Young
	// LoaderWaits: the service leaves no shield only where the stream has passed
	// its load.
	LoaderWaits
	// GapIsSwept: a slot that is ahead of Redis is a gap.
	GapIsSwept
	// SweepWhatIsUnknown: no watermark is a gap.
	SweepWhatIsUnknown
	// DurableFirst: the slot is told only what Redis can lose no more.
	DurableFirst
	// Shield: a reader leaves the log's position behind its load.
	Shield
	// DropEndsLease: a drop takes the side key with it.
	DropEndsLease
	// ResumeFromLo: a session goes on where Redis is.
	ResumeFromLo
	// OwnersDiffer: each session has an owner of its own.
	OwnersDiffer
	// Probe: who writes nothing looks whether its watermark is still there.
	Probe
	// SweepIsNoted: the batch of its cause notes a sweep in the watermark.
	SweepIsNoted
	// SettledWaits for the end of a sweep.
	SettledWaits
	// SweepsTwice, SweepsSideKeys: a sweep makes two passes, and ends leases as
	// well. PassesAreWhole: each pass goes over values and side keys.
	SweepsTwice
	SweepsSideKeys
	PassesAreWhole
	// MarkerBehind: a batch is written behind what a sweep has dropped.
	MarkerBehind
	// LookupsSettleLater: a change whose keys a lookup has found settles when the
	// stream has passed the lookup; LookupsOutlive a session.
	LookupsSettleLater
	LookupsOutlive
	// LookupsAwaitDrops: until that has dropped its keys, too. LookupsAwaitLookups: and
	// what lookups have seen that it relies on.
	LookupsAwaitDrops
	LookupsAwaitLookups
	// SeenBehindLookup: the place in the log that it must pass is asked behind the
	// lookup.
	SeenBehindLookup
	// FanOutIsNoted: while a fan-out goes on beside the stream, the watermark says that
	// the entry is to be swept. FanOutHoldsSettled: and settled stands.
	// FanOutEndsBehind: its end is noted behind its last keys.
	FanOutIsNoted
	FanOutHoldsSettled
	FanOutEndsBehind
	// UnlinkedAgain: a batch beside the stream that is sent again drops its keys again.
	UnlinkedAgain
	// SeenOnce: what came over Kafka before only drops.
	SeenOnce
	// TargetIsOfTheLog: what may have been delivered before goes by the log, not
	// by the end of the topic.
	TargetIsOfTheLog
	// LowestResumes: a session over several masters begins at the lowest lo.
	LowestResumes
	// LoGoesBack: and sets every watermark back to there, FirstsComeFirst: before
	// any master goes on.
	LoGoesBack
	FirstsComeFirst
	// BarrierAsksSlots: a barrier believes only a watermark that speaks for the
	// key's slot. SlotsShrinkFirst: one that has moved away is taken from it by the
	// session's first batch; SlotsGrowLast: one that has come is added when the
	// replay has ended.
	BarrierAsksSlots
	SlotsShrinkFirst
	SlotsGrowLast
	// MovedIsDropped: a key that is moving is dropped by itself, SideKeyFirst.
	MovedIsDropped
	SideKeyFirst
	// RunID: a sweep begins again where Redis has restarted meanwhile.
	RunID
	// SealIsAsked: a sweep goes by names only where they are complete, and SealStands:
	// until its end.
	SealIsAsked
	SealStands
	// NamesGoTogether: a key goes with its name.
	NamesGoTogether
	// PassesName: what the passes leave of a template gets its name.
	PassesName
	// SealsLast: names are complete when it is known that Redis did not restart while they
	// were collected.
	SealsLast
	// SetIsBegunFirst: a set of an index is begun before it is read in the database.
	SetIsBegunFirst
	// SetPositionBehind: from where on it is complete is asked behind the reading.
	SetPositionBehind
	// AdditionsAreMarked: what is added to a set that is being built leaves a token.
	AdditionsAreMarked
	// CompleteAsksRedis: whether the stream is there the script asks that completes the
	// set, not the session before it.
	CompleteAsksRedis
	// EditsGoTogether: what a batch does to sets is in its script.
	EditsGoTogether
	// IndexSettlesLater: a change whose keys an index has told settles when the stream
	// has passed what was in the log when it was visible.
	IndexSettlesLater
	// ScanIsOfOneSet: a large set counts as read if it was the same until the end, and
	// ScanIsOfOneProcess: in one process of Redis.
	ScanIsOfOneSet
	ScanIsOfOneProcess
	// SetsAreSwept with their entry, SetsAreSweptTwice: in both passes.
	// SweptIsAskedElsewhere: in between the database answers.
	SetsAreSwept
	SetsAreSweptTwice
	SweptIsAskedElsewhere
)

// An Ablation takes rules away, in a world that is just large enough to show
// what they are for.
type Ablation struct {
	Name string
	// Says what is taken away, for people.
	Says    string
	Without Rule
	Patches []Patch
	// Unneeded, if not empty, says why nothing breaks without it.
	Unneeded string
}

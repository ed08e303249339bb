package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/redistest"
)

// common is the server of all tests that neither stop nor fill theirs; each uses keys of its own.
var common *redistest.Server

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "queue")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if common, err = redistest.Start(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer common.Kill()
	return m.Run()
}

var prefixes atomic.Int64

func newPrefix() string { return "t" + strconv.FormatInt(prefixes.Add(1), 10) }

// begin is the time at which the tests of scripts begin, in ms.
const begin = 1_000_000

// rig calls the scripts on one shard, at a time that the test sets.
type rig struct {
	t                 testing.TB
	client            *redis.Client
	keys              keys
	now               int64
	calls             int
	most              int   // unfinished deliveries
	bytes             int   // of payloads
	early, earlyBytes int   // deliveries and payload bytes that publish may lease
	givesUp           int64 // when the caller does, 0: never
}

func newRig(t testing.TB) *rig {
	t.Helper()
	client := common.Client()
	r := &rig{t: t, client: client, keys: newKeys(newPrefix(), 0), now: begin, most: 1000, bytes: 1 << 20, earlyBytes: 1 << 20}
	t.Cleanup(func() { _ = client.Close() })
	return r
}

func (r *rig) run(script *redis.Script, args ...any) any {
	r.t.Helper()
	reply, err := r.try(script, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply
}

func (r *rig) try(script *redis.Script, args ...any) (any, error) {
	return script.Run(r.t.Context(), r.client, r.keys.declared(), append([]any{r.now}, args...)...).Result()
}

// trip calls trip.lua with the arguments of its parts, nil for one that is left out.
func (r *rig) trip(parts [4][]any) []any {
	r.t.Helper()
	var args, counts []any
	for _, part := range parts {
		counts = append(counts, len(part))
		args = append(args, part...)
	}
	answers, _ := r.run(tripScript, append(counts, args...)...).([]any)
	return answers
}

// The parts of a trip.
const (
	publishPart = iota
	settlePart
	extendPart
	leasePart
)

// part calls trip.lua with one of its parts alone.
func (r *rig) part(n int, args ...any) any {
	r.t.Helper()
	var parts [4][]any
	parts[n] = args
	return r.trip(parts)[n]
}

// limits are those of a subscription in the order of configure.lua.
func (r *rig) configure(limits ...string) string {
	r.t.Helper()
	var args []any
	for _, l := range limits {
		for _, field := range strings.Fields(l) {
			args = append(args, field)
		}
		args = append(args, "n")
	}
	return fmt.Sprint(r.run(configureScript, args...))
}

// pub is an event as publish.lua takes it; targets are sub/delivery pairs.
type pub struct {
	id, fingerprint, receipt, payload, targets string
	further                                    bool
}

func (p pub) args() []any {
	if p.payload == "" {
		p.payload = "t\n" + p.id
	}
	pairs := strings.Fields(p.targets)
	whole, bytes := len(pairs), len(p.payload)
	if p.further {
		whole, bytes = 0, 0
	}
	args := []any{p.id, p.fingerprint, p.receipt, p.payload, whole, bytes, len(pairs)}
	for _, pair := range pairs {
		sub, delivery, _ := strings.Cut(pair, "/")
		args = append(args, sub, delivery)
	}
	return args
}

func (r *rig) publish(events ...pub) string {
	r.t.Helper()
	r.calls++
	return r.publishAs(r.calls, events...)
}

func (r *rig) publishAs(number int, events ...pub) string {
	r.t.Helper()
	return told(r.part(publishPart, r.publishArgs(number, events...)...))
}

// told is an answer of publish as text, spelled.
func told(answer any) string {
	entries, _ := answer.([]any)
	return fmt.Sprint(spelled(entries))
}

// spelled is an answer of publish with an entry for each event, and behind these token, time and places of what was
// leased.
func spelled(answer []any) []any {
	if len(answer) < 3 {
		return answer
	}
	toInt := func(v any) int {
		n, _ := strconv.Atoi(fmt.Sprint(v))
		return n
	}
	all := []any{0}
	for range toInt(answer[1]) {
		all = append(all, []any{0})
	}
	for _, entry := range answer[3:] {
		entry := entry.([]any) //nolint:forcetypeassert // or the test stops
		all[toInt(entry[0])] = entry[1:]
	}
	if leased, ok := answer[2].([]any); ok {
		places := leased[3:]
		for place := range toInt(leased[2]) {
			if len(leased) == 3 {
				places = append(places, place)
			}
		}
		all = append(all, append([]any{toInt(leased[0]), toInt(leased[1])}, places...))
	}
	return all
}

func (r *rig) publishArgs(number int, events ...pub) []any {
	args := []any{"q", number, 60_000, 60_000, r.most, r.bytes, r.early, r.earlyBytes, leaseMillis, number - 1,
		r.givesUp, len(events)}
	for _, e := range events {
		args = append(args, e.args()...)
	}
	return args
}

const leaseMillis = 20_000

// claim is a call of lease.lua. Zero fields take plenty.
type claim struct {
	most, bytes, share, expired int
	dispatcher                  string
	none                        bool
}

func (r *rig) leaseRaw(c claim) []any {
	r.t.Helper()
	reply, ok := r.part(leasePart, r.leasing(c)...).([]any)
	if !ok || len(reply) != 6 {
		r.t.Fatalf("lease answered %v", reply)
	}
	return reply
}

func (r *rig) leasing(c claim) []any {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.most, 100)
	set(&c.bytes, 1<<20)
	set(&c.share, 4)
	set(&c.expired, 100)
	if c.none {
		c.most, c.bytes = 0, 0
	}
	if c.dispatcher == "" {
		c.dispatcher = "me"
	}
	return []any{c.most, c.bytes, leaseMillis, c.share, c.expired, c.dispatcher, 5000, r.givesUp}
}

func (r *rig) lease(c claim) string {
	r.t.Helper()
	return fmt.Sprint(r.leaseRaw(c))
}

// end is a settlement as settle.lua takes it.
type end struct {
	delivery          string
	token             int
	result            Result
	delay, ago, took  int
	status            int
	reason, errorText string
	attempt           string
}

func (r *rig) settle(ends ...end) string {
	r.t.Helper()
	return fmt.Sprint(r.part(settlePart, settling(ends...)...))
}

func settling(ends ...end) []any {
	args := []any{mostTries, mostTriesBytes, len(ends)}
	for _, e := range ends {
		args = append(args, e.delivery)
	}
	for _, e := range ends {
		args = append(args, e.token, int(e.result), e.delay, e.ago, e.took, e.status, e.reason, e.errorText, e.attempt)
	}
	return args
}

// What is kept of attempts while their delivery is unfinished.
const (
	mostTries      = 3
	mostTriesBytes = 100
)

// filing is a call of file.lua. Zero fields take plenty.
type filing struct {
	records, perSub, age, bytes, outbox, forget int
	copying                                     bool
}

func (r *rig) file(f filing) string {
	r.t.Helper()
	for field, plenty := range map[*int]int{
		&f.records: 100, &f.perSub: 100, &f.age: 3_600_000, &f.bytes: 1 << 28, &f.outbox: 1 << 20, &f.forget: 1000,
	} {
		if *field == 0 {
			*field = plenty
		}
	}
	return fmt.Sprint(r.run(fileScript, f.records, f.perSub, f.age, f.bytes, flag(f.copying), f.outbox, f.forget))
}

func (r *rig) extend(tokens ...any) string {
	r.t.Helper()
	return fmt.Sprint(r.part(extendPart, append([]any{leaseMillis}, tokens...)...))
}

func (r *rig) cancel(sub string, most int) string {
	r.t.Helper()
	return fmt.Sprint(r.run(cancelScript, sub, most))
}

// audit fails the test when the shard is not whole.
func (r *rig) audit() {
	r.t.Helper()
	reply, _ := r.run(auditScript, 100_000).([]any)
	if len(reply) != 1 {
		r.t.Fatalf("audit found %v in\n%v", reply, r.state())
	}
}

// state is all that the shard holds: the key's name without the prefix, "(ttl)" behind one that expires, and its
// content as text. A subscription's fields that are 0 or empty are left out, its limits come first.
func (r *rig) state() map[string]string {
	r.t.Helper()
	ctx := r.t.Context()
	state := map[string]string{}
	iter := r.client.Scan(ctx, 0, r.keys.prefix+"*", 1000).Iterator()
	for iter.Next(ctx) {
		name := strings.TrimPrefix(iter.Val(), r.keys.prefix)
		if token, ok := strings.CutPrefix(name, "claims:"); ok {
			if err := r.client.ZScore(ctx, r.keys.prefix+"leases", token).Err(); err != nil {
				state[name] = "of no lease"
			}
			continue // shown with the leases
		}
		content := r.content(ctx, iter.Val())
		if r.client.PTTL(ctx, iter.Val()).Val() > 0 {
			name += " (ttl)"
		}
		if content != "" { // a stream without entries stays
			state[name] = content
		}
	}
	r.countTypes(state)
	if err := iter.Err(); err != nil {
		r.t.Fatal(err)
	}
	return state
}

// countTypes holds the events that were taken, by type, to their number, and leaves them out.
func (r *rig) countTypes(state map[string]string) {
	r.t.Helper()
	events := 0
	for _, n := range r.client.HGetAll(r.t.Context(), r.keys.prefix+"types").Val() {
		count, _ := strconv.Atoi(n)
		events += count
	}
	if want := r.client.HGet(r.t.Context(), r.keys.totals(), "events").Val(); strconv.Itoa(events) != want && want != "" {
		r.t.Errorf("%d events by type, %s in all", events, want)
	}
	delete(state, "types")
}

func (r *rig) content(ctx context.Context, key string) string {
	r.t.Helper()
	switch kind := r.client.Type(ctx, key).Val(); kind {
	case "string":
		if strings.HasPrefix(key, r.keys.prefix+"sub:") {
			return hashText(r.subscription(ctx, key))
		}
		if key == r.keys.prefix+"filed" {
			return "*" // an id by the server's clock
		}
		value := r.client.Get(ctx, key).Val()
		if strings.HasPrefix(key, r.keys.prefix+"call:") {
			return r.callText(value)
		}
		return value
	case "list":
		return strings.Join(r.client.LRange(ctx, key, 0, -1).Val(), " ")
	case "set":
		members := r.client.SMembers(ctx, key).Val()
		sort.Strings(members)
		return strings.Join(members, " ")
	case "zset":
		var words []string
		for _, z := range r.client.ZRangeWithScores(ctx, key, 0, -1).Val() {
			if key == r.keys.prefix+"leases" {
				words = append(words, r.claims(ctx, fmt.Sprint(z.Member), z.Score)...)
				continue
			}
			words = append(words, fmt.Sprintf("%v@%.0f", z.Member, z.Score))
		}
		return strings.Join(words, " ")
	case "hash":
		if key == r.keys.prefix+"refs" {
			return refsText(r.client.HGetAll(ctx, key).Val())
		}
		return hashText(r.client.HGetAll(ctx, key).Val())
	case "stream": // an entry is in brackets, without its id
		var entries []string
		for _, entry := range r.client.Do(ctx, "XRANGE", key, "-", "+").Val().([]any) {
			entries = append(entries, recordsText(entry.([]any)[1].([]any)))
		}
		return strings.Join(entries, " ")
	default:
		r.t.Fatalf("key %s is a %s", key, kind)
		return ""
	}
}

// callText is the latest call of a publisher with its answer spelled.
func (r *rig) callText(value string) string {
	r.t.Helper()
	at := strings.LastIndex(value, "|") + 1
	decoder := json.NewDecoder(strings.NewReader(value[at:]))
	decoder.UseNumber()
	var answer []any
	if err := decoder.Decode(&answer); err != nil {
		r.t.Fatalf("%s: %v", value, err)
	}
	spelt, err := json.Marshal(spelled(answer))
	if err != nil {
		r.t.Fatal(err)
	}
	return value[:at] + string(spelt)
}

// claims are those of a token, each as token:delivery@expiry.
func (r *rig) claims(ctx context.Context, token string, expiry float64) []string {
	claimed := r.client.SMembers(ctx, r.keys.prefix+"claims:"+token).Val()
	sort.Strings(claimed)
	for i, delivery := range claimed {
		claimed[i] = fmt.Sprintf("%s:%s@%.0f", token, delivery, expiry)
	}
	return claimed
}

// refsText is the unfinished deliveries that need each payload, and behind a +, where there are any, the entries and records of the history that do.
func refsText(refs map[string]string) string {
	for event, n := range refs {
		count, _ := strconv.Atoi(n)
		if count < keptOne {
			continue
		}
		refs[event] = fmt.Sprintf("%d+%d", count%keptOne, count/keptOne)
	}
	return hashText(refs)
}

const keptOne = 1 << 24 // as in lib.lua

// recordsText is {field, attempts, ...} as ordinal:delivery=record attempts.
func recordsText(pairs []any) string {
	var words []string
	for i := 0; i+1 < len(pairs); i += 2 {
		record := strings.Replace(strings.Replace(text(pairs[i]), "|", ":", 1), "|", "=", 1)
		record = strings.TrimPrefix(record, ":")
		words = append(words, strings.TrimSpace(record+" "+text(pairs[i+1])))
	}
	return fmt.Sprint(words)
}

// subscriptionFields are those of a packed subscription, in the order of lib.lua.
var subscriptionFields = strings.Fields("gen rate cap max act pau gone full drt fr du inf ru rh rs rn cf rtry ver" +
	" ok fail canc lsum lcnt lat lok lst lrs ler ns")

// subscriptionLayout is how lib.lua packs them.
const subscriptionLayout = "<di4i4i4BBBBBi4i4i4i4i4i4i4i4i4ddddddddi4I2c0I2c0I2c0"

// subscription unpacks what lib.lua keeps of one.
func (r *rig) subscription(ctx context.Context, key string) map[string]string {
	r.t.Helper()
	const script = `return {struct.unpack(ARGV[1], redis.call('GET', KEYS[1]))}`
	values, err := r.client.Eval(ctx, script, []string{key}, subscriptionLayout).Slice()
	if err != nil {
		r.t.Fatal(err)
	}
	fields := map[string]string{}
	for i, name := range subscriptionFields {
		fields[name] = fmt.Sprint(values[i])
	}
	return fields
}

func hashText(fields map[string]string) string {
	var words []string
	if _, sub := fields["gen"]; sub {
		delete(fields, "ns")  // it is n
		delete(fields, "drt") // it is audited
		words = append(words, fmt.Sprintf("g%s r%s c%s m%s a%s p%s", fields["gen"], fields["rate"], fields["cap"],
			fields["max"], fields["act"], fields["pau"]))
		for field, value := range fields {
			if value == "0" || value == "" || slices.Contains([]string{"gen", "rate", "cap", "max", "act", "pau"}, field) {
				delete(fields, field)
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		words = append(words, field+"="+fields[field])
	}
	return strings.Join(words, " ")
}

// changes are the keys that differ between two states; a key that is gone has "-".
func changes(before, after map[string]string) map[string]string {
	diff := map[string]string{}
	for key, value := range after {
		if old, ok := before[key]; !ok || old != value {
			diff[key] = value
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			diff[key] = "-"
		}
	}
	return diff
}

// scriptCase is one call of a script on a seeded shard: what it answers, and every key that it changes.
type scriptCase struct {
	seed   func(*rig)
	call   func(*rig) string
	answer string
	want   map[string]string
	torn   bool // the seed breaks the shard, so that it cannot be whole afterwards
}

func runScriptCases(t *testing.T, cases map[string]scriptCase) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if c.seed != nil {
				c.seed(r)
			}
			before := r.state()
			if answer := c.call(r); c.answer != answer {
				t.Errorf("answer\n got %s\nwant %s", answer, c.answer)
			}
			if c.want == nil {
				c.want = map[string]string{}
			}
			if diff := cmp.Diff(c.want, changes(before, r.state())); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if !c.torn {
				r.audit()
			}
		})
	}
}

// eventually polls until the condition holds; it fails the test after a while.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func zOf(member string, score float64) redis.Z { return redis.Z{Member: member, Score: score} }

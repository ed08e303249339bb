package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed scripts/lib.lua
var library string

//go:embed scripts/publish.lua
var publishSource string

//go:embed scripts/confirm.lua
var confirmSource string

//go:embed scripts/lease.lua
var leaseSource string

//go:embed scripts/settle.lua
var settleSource string

//go:embed scripts/extend.lua
var extendSource string

//go:embed scripts/trip.lua
var tripSource string

//go:embed scripts/configure.lua
var configureSource string

//go:embed scripts/cancel.lua
var cancelSource string

//go:embed scripts/changed.lua
var changedSource string

//go:embed scripts/reflected.lua
var reflectedSource string

//go:embed scripts/file.lua
var fileSource string

//go:embed scripts/copied.lua
var copiedSource string

//go:embed scripts/retry.lua
var retrySource string

//go:embed scripts/end.lua
var endSource string

//go:embed scripts/operate.lua
var operateSource string

//go:embed scripts/enlist.lua
var enlistSource string

//go:embed scripts/begin.lua
var beginSource string

//go:embed scripts/ended.lua
var endedSource string

//go:embed scripts/audit.lua
var auditSource string

var (
	tripScript = newScript(library + functionOf("publish", publishSource) + functionOf("settle", settleSource) +
		functionOf("extend", extendSource) + functionOf("lease", leaseSource) + tripSource)
	configureScript = newScript(library + configureSource)
	cancelScript    = newScript(library + cancelSource)
	changedScript   = newScript(library + changedSource)
	reflectedScript = newScript(library + reflectedSource)
	fileScript      = newScript(library + fileSource)
	copiedScript    = newScript(library + copiedSource)
	retryScript     = newScript(library + retrySource)
	endScript       = newScript(library + endSource)
	enlistScript    = newScript(library + enlistSource)
	beginScript     = newScript(library + beginSource)
	endedScript     = newScript(library + endedSource)
	auditScript     = newScript(library + auditSource)

	retryNextScript  = nextOf(retrySource)
	cancelNextScript = nextOf(endSource)
)

// nextOf is the script that makes a change of one delivery to the next one of an operation.
func nextOf(change string) *redis.Script {
	return newScript(library + functionOf("change", change) + operateSource)
}

// fieldNames are those of a subscription in the scripts, and of its statistics, in their order there.
var fieldNames = [][]string{
	strings.Fields("GEN RATE CAP MAX ACT PAU GONE FULL DRT FR DU INF RU RH RS RN CF RTRY VER PACKED_STATS" +
		" ID KEY RTRY_READ LINED STATS LISTED FULL_NOW TURN LAST WAS_OK WAS_CF"),
	strings.Fields("OK FAIL CANC LSUM LCNT LAT LOK LST LRS LER NS"),
}

// newScript puts numbers for the names of fields. Lua has no constants, and locals would cost every function that uses
// them.
func newScript(source string) *redis.Script {
	var numbers []string
	for _, names := range fieldNames {
		for i, name := range names {
			numbers = append(numbers, "["+name+"]", "["+strconv.Itoa(i+1)+"]")
		}
	}
	return redis.NewScript(strings.NewReplacer(numbers...).Replace(source))
}

// functionOf makes a script a function of another one.
func functionOf(name, source string) string {
	return "local function " + name + "(ARGV)\n" + source + "\nend\n"
}

// run calls one script on a shard.
func (q *Queue) run(ctx context.Context, script *redis.Script, k keys, args []any) ([]any, error) {
	s := &step{script: script, args: args}
	q.roundTrip(ctx, k, []*step{s})
	return s.reply, s.err
}

// step is one script call of a round trip.
type step struct {
	script *redis.Script
	args   []any
	reply  []any
	err    error
	again  bool // it was sent twice, since the connection broke: it may have been executed before
}

// roundTrip sends the steps in one pipeline. A step whose script the server has forgotten (SCRIPT FLUSH, a failover)
// ran nothing, so it is sent again with its source; then it ran after the steps behind it.
//
// Where the connection breaks, all are sent once more: every script may be repeated.
func (q *Queue) roundTrip(ctx context.Context, k keys, steps []*step) {
	node, err := q.node(ctx, k)
	if err != nil {
		for _, s := range steps {
			s.err = unavailable(err)
		}
		return
	}
	commands, err := send(ctx, node, k, steps)
	for looks := 0; looks < maxLooks && q.elsewhere(ctx, err); looks++ {
		next, lost := q.node(ctx, k)
		if lost != nil {
			break // the refusal stands
		}
		node = next
		commands, err = send(ctx, node, k, steps)
	}
	if broken(err) && ctx.Err() == nil {
		for _, s := range steps {
			s.again = true
		}
		commands, _ = send(ctx, node, k, steps)
	}
	for i, s := range steps {
		s.reply, s.err = commands[i].Slice()
		if s.err != nil && redis.HasErrorPrefix(s.err, "NOSCRIPT") {
			s.reply, s.err = s.script.Eval(ctx, node, k.declared(), s.args...).Slice()
		}
		if s.err != nil {
			s.err = unavailable(s.err)
		}
	}
}

// send sends the steps in one pipeline. Each command carries its own error; the one that it returns is the first.
func send(ctx context.Context, node redis.Cmdable, k keys, steps []*step) ([]*redis.Cmd, error) {
	pipe := node.Pipeline()
	commands := make([]*redis.Cmd, len(steps))
	for i, s := range steps {
		commands[i] = s.script.EvalSha(ctx, pipe, k.declared(), s.args...)
	}
	return commands, execute(ctx, pipe)
}

// execute sends a pipeline, whose commands then carry their own errors. Where Redis refuses the connection (a wrong
// password) go-redis gives them none, and they would look like empty answers.
func execute(ctx context.Context, pipe redis.Pipeliner) error {
	commands, err := pipe.Exec(ctx)
	if err == nil || slices.ContainsFunc(commands, func(c redis.Cmder) bool { return c.Err() != nil }) {
		return err //nolint:wrapcheck // for those who look at the commands
	}
	for _, c := range commands {
		c.SetErr(err)
	}
	return err //nolint:wrapcheck // likewise
}

// broken tells whether the connection ended under a call, rather than that Redis answered an error, is not there, or
// does not answer.
func broken(err error) bool {
	var network *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &network) && network.Op != "dial" && !network.Timeout()
}

// ErrUnavailable is wrapped by every error that comes from Redis: it is down, slow, full or refuses to write.
var ErrUnavailable = errors.New("queue unavailable")

// ErrFull is wrapped, beside ErrUnavailable, where Redis has no memory left (maxmemory with noeviction).
var ErrFull = errors.New("redis is out of memory")

// readError is unavailable for an error, nil for none.
func readError(err error) error {
	if err == nil {
		return nil
	}
	return unavailable(err)
}

func unavailable(err error) error {
	if redis.HasErrorPrefix(err, "OOM") {
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

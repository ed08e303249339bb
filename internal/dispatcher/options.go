package dispatcher

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"nexus.io/webhooks/internal/dispatcher/access"
	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/internal/settings"
)

// Options of an App. Bind declares them as flags and variables, and fills in the defaults at once.
type Options struct {
	ListenAddress   string // of the event API; ":0" picks a port
	MetricsAddress  string
	MaxConnections  int
	Auth            string // AuthNone or AuthKubernetes
	AuthNoneAnyHost bool   // the second telling that Auth none needs beyond loopback
	AuthAudience    string // that tokens must be made for
	AuthCache       time.Duration
	AuthOutage      time.Duration

	RedisURL           string
	Shards             int
	QueueMaxDeliveries int
	QueueMaxMebibytes  int
	LeaseTime          time.Duration
	Durability         string // what a 202 waits for: a queue.Durability
	HistoryMax         int    // records of one subscription
	HistoryMaxAge      time.Duration
	HistoryMebibytes   int

	PostgresURL            string // "": no history but that in Redis
	HistoryRetentionDays   int
	HistoryOutboxMebibytes int

	MaxBacklog    int // unfinished deliveries of one subscription
	Defaults      routing.Defaults
	MaxInFlight   int // attempts of this process
	MaxInFlightMB int

	EgressNetworks string // comma-separated, as egress.ParseNetworks reads them

	EventTypesFile       string
	Namespace            string // where the reflector's Lease lies
	DefaultNamespace     string // of subscriptions that are created over HTTP
	WatchNamespaces      string // comma-separated, as program.Namespaces reads them; "" for all
	RequireGrant         bool
	StatusWritesPerSec   int
	MetricsSubscriptions int
	Drain                time.Duration
	LogLevel             string
	LogFormat            string
	Kubeconfig           string
	Profiling            bool

	// Not settings:
	Name    string       // of this replica, unique; the host name and a random part when empty
	Version string       // for User-Agent and the start line
	Kube    *rest.Config // the way to the Kubernetes API
	Logger  *slog.Logger // slog.Default() when nil
	// CompareEvery and ConfirmAfter are watch's, and its defaults when 0.
	CompareEvery, ConfirmAfter time.Duration
}

// Bind adds the dispatcher's settings to s and fills o with their defaults.
func (o *Options) Bind(s *settings.Set) {
	o.bindListeners(s)
	o.bindQueue(s)
	o.bindDeliveries(s)
	o.bindKubernetes(s)
	o.bindProcess(s)
	s.Check(o.Validate)
}

func (o *Options) bindListeners(s *settings.Set) {
	s.Group("Listening")
	s.String(&o.ListenAddress, "listen-address", "WEBHOOK_LISTEN_ADDRESS", ":8087",
		"`HOST:PORT` of the event API and of the probes /healthz and /readyz.", settings.HostPort)
	s.String(&o.MetricsAddress, "metrics-address", "WEBHOOK_METRICS_ADDRESS", ":8088",
		"`HOST:PORT` of the Prometheus metrics at /metrics.", settings.HostPort)
	s.Int(&o.MaxConnections, "max-connections", "WEBHOOK_MAX_CONNECTIONS", 2_000, 1, 1_000_000,
		"Connections of callers at once: each may take some 350 KB with a hostile header until that is refused. For a "+
			"further one the connection that has waited longest for a request is closed, and where none does it waits.")
	s.Choice(&o.Auth, "auth", "WEBHOOK_AUTH", []string{AuthNone, AuthKubernetes},
		"How callers of the HTTP API show who they are. With kubernetes by a bearer token of the cluster, and RBAC says "+
			"what they may do. With none everybody may do everything who reaches the port, so listen-address must be a "+
			"loopback address, or --auth-none-on-any-address be given too.")
	s.Bool(&o.AuthNoneAnyHost, "auth-none-on-any-address", "WEBHOOK_AUTH_NONE_ON_ANY_ADDRESS", false,
		"Take --auth=none also on an address that others reach; a NetworkPolicy should then say who does.")
	o.bindAuth(s)
}

func (o *Options) bindAuth(s *settings.Set) {
	s.String(&o.AuthAudience, "auth-audience", "WEBHOOK_AUTH_AUDIENCE", access.DefaultAudience,
		"`AUDIENCE` that tokens must be made for, with --auth=kubernetes: those that others were shown are no good here.",
		settings.NotEmpty)
	s.Seconds(&o.AuthCache, "auth-cache", "WEBHOOK_AUTH_CACHE", 10*time.Second, time.Second, time.Minute,
		"How long it counts that a caller may do something, without another look: a right that was revoked ends after it.")
	s.Seconds(&o.AuthOutage, "auth-outage", "WEBHOOK_AUTH_OUTAGE", 5*time.Minute, 0, time.Hour,
		"The same while the Kubernetes API is away, for callers that it knew; others get 503 meanwhile.")
}

func (o *Options) bindQueue(s *settings.Set) {
	s.Group("Queue")
	s.Secret(&o.RedisURL, "redis-url", "REDIS_URL", "redis://localhost:6379",
		"`URL` of Redis: redis://[user:password@]host:port[/db], rediss:// with TLS, hosts by commas for a Redis "+
			"Cluster, redis-sentinel://host:port,.../master. Prefer the variable: everybody on a machine can read flags.",
		checkRedis)
	s.Int(&o.Shards, "queue-shards", "WEBHOOK_QUEUE_SHARDS", 1, 1, 1024,
		"Parts of the queue, each on one node of a Redis Cluster; a single Redis needs one. It cannot change while the "+
			"queue holds data.")
	s.Int(&o.QueueMaxDeliveries, "queue-max-deliveries", "WEBHOOK_QUEUE_MAX_DELIVERIES", 1_000_000, 1, 1_000_000_000,
		"Unfinished deliveries past which new events are refused (429), so that Redis does not run full.")
	s.Int(&o.QueueMaxMebibytes, "queue-max-mebibytes", "WEBHOOK_QUEUE_MAX_MEBIBYTES", 1024, 1, 1<<20,
		"The same by the size of their events.")
	s.Int(&o.MaxBacklog, "subscription-max-backlog", "WEBHOOK_SUBSCRIPTION_MAX_BACKLOG", 100_000, 1, 1_000_000_000,
		"Unfinished deliveries of one subscription past which its further ones fail, so that it cannot fill the queue.")
	s.Seconds(&o.LeaseTime, "lease-time", "WEBHOOK_LEASE_TIME", 20*time.Second, 3*time.Second, 10*time.Minute,
		"After how long the deliveries of a dispatcher that died go on elsewhere. A live one extends its leases.")
	s.Choice(&o.Durability, "durability", "WEBHOOK_DURABILITY",
		[]string{string(queue.ByRedis), string(queue.ByReplica), string(queue.ByDisk)},
		"What an event's 202 waits for. redis: Redis has it, and Redis' settings say what that survives. replica: and a "+
			"replica has received it (WAIT). disk: and it is on Redis' disk (WAITAOF, of Redis 7.2 or newer with "+
			"appendonly yes). What is not so within 2.5 seconds is answered 503.")
	o.bindHistory(s)
	o.bindArchive(s)
}

func (o *Options) bindHistory(s *settings.Set) {
	s.Group("History of deliveries in Redis")
	s.Int(&o.HistoryMax, "history-max-per-subscription", "WEBHOOK_HISTORY_MAX_PER_SUBSCRIPTION", 100, 1, 100_000,
		"Deliveries of one subscription that are kept once they have ended, the latest. Each takes some 600 bytes, its "+
			"answer's beginning (at most 1,000 bytes) for each attempt, and its share of the body, which is kept once.")
	s.Seconds(&o.HistoryMaxAge, "history-max-age", "WEBHOOK_HISTORY_MAX_AGE", 24*time.Hour, time.Minute, 365*24*time.Hour,
		"For how long they are kept, from when the delivery was made.")
	s.Int(&o.HistoryMebibytes, "history-max-mebibytes", "WEBHOOK_HISTORY_MAX_MEBIBYTES", 256, 1, 1<<20,
		"Memory that all of them and their bodies may take, beside that of the queue; then the oldest go first.")
}

func (o *Options) bindArchive(s *settings.Set) {
	s.Group("History of deliveries in PostgreSQL")
	s.Secret(&o.PostgresURL, "postgres-url", "POSTGRES_URL", "",
		"`URL` of the PostgreSQL (14 or later) that keeps every delivery once it has ended: "+
			"postgres://user:password@host:5432/database?sslmode=verify-full. Without it the history is what Redis keeps. "+
			"Give all dispatchers the same.", checkPostgres)
	s.Int(&o.HistoryRetentionDays, "history-retention-days", "WEBHOOK_HISTORY_RETENTION_DAYS",
		postgres.DefaultRetentionDays, 1, postgres.MaxRetentionDays,
		"For how many days they are kept there, from when the delivery was made. Whole days are dropped.")
	s.Int(&o.HistoryOutboxMebibytes, "history-outbox-mebibytes", "WEBHOOK_HISTORY_OUTBOX_MEBIBYTES", 512, 1, 1<<20,
		"Memory of Redis that what is not copied there yet may take, while PostgreSQL is away or slow: some 700 bytes and "+
			"the body for each delivery. Past it the oldest go uncopied, which nexus_webhook_history_lost_total counts.")
}

func (o *Options) bindDeliveries(s *settings.Set) {
	d := &o.Defaults
	s.Group("Defaults for what a subscription leaves out")
	s.Int(&d.Retry.MaxRetries, "max-retries", "WEBHOOK_MAX_RETRIES", 5, 0, 100, "Retries after the first attempt.")
	s.Seconds(&d.Retry.InitialDelay, "initial-delay", "WEBHOOK_INITIAL_DELAY", 5*time.Second, time.Second, 24*time.Hour,
		"Delay before the first retry; it doubles with each further one, up to max-delay.")
	s.Seconds(&d.Retry.MaxDelay, "max-delay", "WEBHOOK_MAX_DELAY", time.Hour, time.Second, 24*time.Hour,
		"Longest delay before a retry, also where the endpoint asks for more by Retry-After.")
	s.Int(&d.RatePerMinute, "rate-limit", "WEBHOOK_RATE_LIMIT", 60, 1, 1_000_000,
		"Requests in any 60 seconds, retries included, over all dispatchers.")
	s.Seconds(&d.Timeout, "timeout", "WEBHOOK_TIMEOUT", 30*time.Second, time.Second, 300*time.Second,
		"Time for one attempt, from the connection to the end of the answer's body.")
	s.Int(&d.MaxInFlight, "max-in-flight", "WEBHOOK_MAX_IN_FLIGHT", 10, 1, 1000,
		"Requests to one subscription under way at once, over all dispatchers.")
	s.Group("Sending")
	s.String(&o.EgressNetworks, "egress-allow-networks", "WEBHOOK_EGRESS_ALLOW_NETWORKS", "",
		"`NETWORKS`, by commas, that may be sent to although they are not public, or over plain http: "+
			"10.1.0.0/16,127.0.0.0/8. Everything else gets https to public addresses only.",
		func(text string) error { _, err := parseNetworks(text); return err })
	s.Int(&o.MaxInFlight, "dispatcher-max-in-flight", "WEBHOOK_DISPATCHER_MAX_IN_FLIGHT", 8192, 1, 100_000,
		"Requests that this dispatcher has under way at once; each takes a connection and some 30 KB. Endpoints that hang "+
			"hold places until their timeout, so leave far more than the others need.")
	s.Int(&o.MaxInFlightMB, "dispatcher-max-in-flight-mebibytes", "WEBHOOK_DISPATCHER_MAX_IN_FLIGHT_MEBIBYTES",
		64, 1, 1<<16, "The same by the size of their bodies.")
}

func (o *Options) bindKubernetes(s *settings.Set) {
	s.Group("Kubernetes")
	s.String(&o.Kubeconfig, "kubeconfig", "", "",
		"Kubeconfig `FILE`. Without it: the files of KUBECONFIG, or else the Pod's ServiceAccount.", nil)
	s.String(&o.Namespace, "namespace", "POD_NAMESPACE", "nexus-webhooks",
		"`NAMESPACE` of the Lease by which one dispatcher is elected to write the statistics.", nil)
	s.String(&o.DefaultNamespace, "default-namespace", "WEBHOOK_DEFAULT_NAMESPACE", "default",
		"`NAMESPACE` in which the HTTP API creates a subscription whose request names none.", checkNamespace)
	s.String(&o.WatchNamespaces, "watch-namespaces", "WEBHOOK_WATCH_NAMESPACES", "",
		"`NAMESPACES`, by commas, whose subscriptions are served, with Roles in each of them; without it all, with a "+
			"ClusterRole. Give the manager the same.", program.CheckNamespaces)
	s.Bool(&o.RequireGrant, "require-namespace-grant", "WEBHOOK_REQUIRE_NAMESPACE_GRANT", false,
		"Give a subscription only the events of the projects and teams that its Namespace's annotations "+
			"webhooks.nexus.io/allowed-projects and webhooks.nexus.io/allowed-teams grant.")
	s.Int(&o.StatusWritesPerSec, "status-writes-per-second", "WEBHOOK_STATUS_WRITES_PER_SECOND", 20, 1, 1000,
		"Status updates that the elected dispatcher makes at most, to spare the API server. It saves up 40.")
}

func (o *Options) bindProcess(s *settings.Set) {
	s.Group("Events")
	s.String(&o.EventTypesFile, "event-types-file", "WEBHOOK_EVENT_TYPES_FILE", "",
		"YAML `FILE` with event types beside the built-in ones (eventTypes: [{type, category, description}]); give the "+
			"manager the same.", nil)
	s.Group("Observing")
	s.Int(&o.MetricsSubscriptions, "metrics-max-subscriptions", "WEBHOOK_METRICS_MAX_SUBSCRIPTIONS", 1000, 1, 100_000,
		"Subscriptions that metrics name; the others count together as \"other\".")
	s.Bool(&o.Profiling, "profiling", "WEBHOOK_PROFILING", false,
		"Serve Go's profiles at /debug/pprof/ beside the metrics.")
	s.Choice(&o.LogLevel, "log-level", "WEBHOOK_LOG_LEVEL", program.Levels, "What is logged at the least.")
	s.Choice(&o.LogFormat, "log-format", "WEBHOOK_LOG_FORMAT", program.Formats, "How a line of the log is written.")
	s.Group("Stopping")
	s.Seconds(&o.Drain, "drain-timeout", "WEBHOOK_DRAIN_TIMEOUT", 35*time.Second, time.Second, 10*time.Minute,
		"After SIGTERM, time for attempts under way to end. Above the timeout of every subscription, none is cut off. "+
			"The Pod's terminationGracePeriodSeconds should be 15 or more above it.")
}

const (
	// AuthNone lets everybody do everything who reaches the port.
	AuthNone = "none"
	// AuthKubernetes wants a bearer token, and asks the Kubernetes API who that is and what they may do.
	AuthKubernetes = "kubernetes"
)

// Validate checks what one setting alone cannot tell, and returns every mistake.
func (o *Options) Validate() error {
	var mistakes []error
	if o.Defaults.Retry.MaxDelay < o.Defaults.Retry.InitialDelay {
		mistakes = append(mistakes, fmt.Errorf("WEBHOOK_MAX_DELAY (--max-delay) is %s, below WEBHOOK_INITIAL_DELAY "+
			"(--initial-delay), which is %s: raise the one or lower the other",
			o.Defaults.Retry.MaxDelay, o.Defaults.Retry.InitialDelay))
	}
	if o.Auth == AuthNone && !o.AuthNoneAnyHost && !loopback(o.ListenAddress) {
		mistakes = append(mistakes, fmt.Errorf("--auth=none on %s (--listen-address) would let everybody publish who "+
			"reaches it: choose --auth=kubernetes, listen on 127.0.0.1, or add --auth-none-on-any-address where the network "+
			"keeps others out",
			o.ListenAddress))
	}
	return errors.Join(mistakes...)
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

func checkNamespace(text string) error {
	if wrong := validation.IsDNS1123Label(text); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

func checkRedis(text string) error {
	client, err := queue.Connect(text)
	if err != nil {
		return err
	}
	return client.Close()
}

func checkPostgres(text string) error {
	if text == "" {
		return nil
	}
	return postgres.CheckURL(text)
}

func parseNetworks(text string) ([]netip.Prefix, error) {
	if text == "" {
		return nil, nil
	}
	return egress.ParseNetworks(strings.Split(text, ","))
}

func (o *Options) queueOptions() queue.Options {
	var outbox int64
	if o.PostgresURL != "" {
		outbox = int64(o.HistoryOutboxMebibytes) << 20
	}
	return queue.Options{
		MaxOutboxBytes: outbox,
		Durability:     queue.Durability(o.Durability),
		Shards:         o.Shards, LeaseTime: o.LeaseTime, MaxDeliveries: o.QueueMaxDeliveries,
		MaxBytes: int64(o.QueueMaxMebibytes) << 20, MaxHistory: o.HistoryMax, MaxHistoryAge: o.HistoryMaxAge,
		MaxHistoryBytes: int64(o.HistoryMebibytes) << 20,
	}
}

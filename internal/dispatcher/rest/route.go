// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Request is a request with who sent it.
type Request struct {
	*http.Request
	Caller Caller
}

// Endpoint answers a request and returns the status that it answered with.
type Endpoint func(w http.ResponseWriter, r *Request) (status int)

// Route is an endpoint of the API.
type Route struct {
	Method string // GET stands for HEAD as well
	Path   string // as http.ServeMux has it, without the method: /api/v1/events/{id}
	Serve  Endpoint
	Open   bool // needs no credentials: its Caller may do nothing
}

// HandlerOptions of Handler.
type HandlerOptions struct {
	Authenticator Authenticator // required
	// Observe is told of every answer, by the path of its route ("other": none), of which there is a fixed set.
	Observe func(route string, status int, took time.Duration)
	Logger  *slog.Logger // slog.Default()
}

// Handler serves the routes. What is not among them gets a problem: 404, or 405 with the methods that are. Each pair of
// path and method must be there once, and the patterns must not conflict: it panics otherwise, as http.ServeMux does.
func Handler(routes []Route, o HandlerOptions) http.Handler {
	h := &handler{HandlerOptions: o}
	paths := map[string]*resource{}
	for _, route := range routes {
		p := paths[route.Path]
		if p == nil {
			p = &resource{handler: h, path: route.Path, methods: map[string]Route{}}
			paths[route.Path] = p
		}
		p.add(route)
	}
	mux := http.NewServeMux()
	for path, p := range paths {
		p.allowed = p.allow()
		mux.Handle(path, p)
	}
	other := http.HandlerFunc(h.notFound)
	mux.Handle("/", other)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != r.URL.Path { // the mux would redirect it, with an answer of its own
			other.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type handler struct{ HandlerOptions }

func (h *handler) observe(route string, status int, start time.Time) {
	if h.Observe != nil {
		h.Observe(route, status, time.Since(start))
	}
}

func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	status := New(http.StatusNotFound,
		fmt.Sprintf("there is nothing at %.100q; events are posted to /api/v1/events", r.URL.Path)).Write(w)
	h.observe("other", status, start)
}

// resource is what is at a path: its methods are told apart here, since http.ServeMux takes a method's pattern with
// a wildcard to conflict with a literal path for all methods.
type resource struct {
	handler *handler
	path    string
	methods map[string]Route
	allowed string
}

func (p *resource) add(route Route) {
	names := []string{route.Method}
	if route.Method == http.MethodGet {
		names = append(names, http.MethodHead)
	}
	for _, name := range names {
		if _, twice := p.methods[name]; twice {
			panic("two routes for " + name + " " + route.Path)
		}
		p.methods[name] = route
	}
}

func (p *resource) allow() string {
	var names []string
	for name := range p.methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// ServeHTTP answers and tells of it.
func (p *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	p.handler.observe(p.path, p.serve(w, r), start)
}

// serve answers. A panic, which http.Server would hide by hanging up, is told to the operator and to the client.
func (p *resource) serve(w http.ResponseWriter, r *http.Request) (status int) {
	defer func() {
		if reason := recover(); reason != nil {
			cmp.Or(p.handler.Logger, slog.Default()).ErrorContext(r.Context(), "A request made the program panic",
				"method", r.Method, "route", p.path, "reason", reason, "stack", string(debug.Stack()))
			status = New(http.StatusInternalServerError, "the dispatcher has a defect, which its log tells of; "+
				"nobody knows what of this request was done").Write(w)
		}
	}()
	route, known := p.methods[r.Method]
	if !known {
		w.Header().Set("Allow", p.allowed)
		return New(http.StatusMethodNotAllowed, fmt.Sprintf("%.100s takes only %s", r.URL.Path, p.allowed)).Write(w)
	}
	if route.Open {
		return route.Serve(w, &Request{Request: r, Caller: nobody{}})
	}
	caller, problem := p.handler.Authenticator.Authenticate(r)
	if problem != nil {
		return problem.Write(w)
	}
	return route.Serve(w, &Request{Request: r, Caller: caller})
}

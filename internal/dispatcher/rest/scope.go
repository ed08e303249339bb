// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"
)

// Scope is the namespaces in which a caller may do something. It lives as long as the request whose list it narrows,
// and asks once for each namespace.
type Scope struct {
	ctx        context.Context
	caller     Caller
	do         Action
	everywhere bool
	namespaces map[string]bool
	problem    *Problem // nobody can tell
}

// NewScope asks for the action's namespace, which the caller must then be allowed, or for all at once ("") of which it
// may be allowed none.
func NewScope(ctx context.Context, caller Caller, do Action) (*Scope, *Problem) {
	s := &Scope{ctx: ctx, caller: caller, do: do, namespaces: map[string]bool{}}
	p := Refusal(caller.May(ctx, do))
	switch {
	case p == nil:
		s.everywhere = true
	case do.Namespace != "" || p.Status != http.StatusForbidden:
		return nil, p
	}
	return s, nil
}

// Holds tells whether what lies in a namespace is within the scope. It is false for all once there is a Problem.
func (s *Scope) Holds(namespace string) bool {
	if s.everywhere || s.problem != nil {
		return s.everywhere && (s.do.Namespace == "" || s.do.Namespace == namespace)
	}
	may, asked := s.namespaces[namespace]
	if !asked {
		do := s.do
		do.Namespace = namespace
		p := Refusal(s.caller.May(s.ctx, do))
		if p != nil && p.Status != http.StatusForbidden {
			s.problem = p
		}
		may = p == nil
		s.namespaces[namespace] = may
	}
	return may
}

// Everywhere tells whether the caller may do it wherever the action says, all namespaces included.
func (s *Scope) Everywhere() bool { return s.everywhere }

// Problem is that nobody could tell of a namespace, nil if all were answered. Ask for it after the last Holds.
func (s *Scope) Problem() *Problem { return s.problem }

package main

import (
	"context"
	"errors"
	"time"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/store"
)

// sources is what the commands may ask.
func sources(st *store.Store, loop *reconcile.Loop, p *planes) control.Sources {
	since := time.Now()
	return control.Sources{
		Snapshot: st.Snapshot,
		Rules: func(context.Context) (string, error) {
			if p.rules == nil {
				return "", errors.New("the daemon runs with --iptables=false: it has no rules")
			}
			return p.rules.Rules(), nil
		},
		Status: func(context.Context) (control.Status, error) {
			s := control.Count(st.Snapshot())
			s.Version, s.Since, s.Backend = version.String(), since, "none"
			if p.backend != nil {
				s.Backend = p.backend.Variant()
			}
			describe(&s, loop.Status())
			return s, nil
		},
	}
}

// describe adds how the last pass went.
func describe(s *control.Status, l reconcile.Status) {
	s.Applied = l.Applied
	for _, step := range l.Steps {
		if step.Error != "" {
			s.Errors = append(s.Errors, step.Error)
		}
	}
	if l.Passes == 0 {
		s.Errors = append(s.Errors, "the host has not been compared with the state yet")
	}
}

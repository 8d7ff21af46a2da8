package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drawbridge-net/drawbridge/collect"
	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/store"
)

// sources is what the commands may ask.
func sources(st *store.Store, loop *reconcile.Loop, network *driver.Driver, p *planes, garbage *collect.Collector, untranslated string) control.Sources {
	since := time.Now()
	return control.Sources{
		Snapshot:   st.Snapshot,
		Publishing: p.publishing,
		Orphans:    func(ctx context.Context) ([]control.Orphan, error) { return listOrphans(ctx, garbage) },
		Collect:    func(ctx context.Context) ([]control.Orphan, error) { return collectOrphans(ctx, garbage) },
		Rules: func(context.Context) (string, error) {
			if p.rules == nil {
				return "", errors.New("the daemon runs with --iptables=false: it has no rules")
			}
			return p.rules.Rules(), nil
		},
		Verify: func(ctx context.Context) ([]control.Difference, error) { return verify(ctx, loop) },
		Status: func(ctx context.Context) (control.Status, error) {
			patience := checkTime
			if loop.Status().Failed() { // what it says is no news, and the next pass may hang as the last one did
				patience = brokenTime
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			late := loop.Check(ctx) // what fails in it, describe tells from the steps
			s := control.Count(st.Snapshot())
			s.Version, s.Since, s.Backend = version.String(), since, "none"
			if p.backend != nil {
				s.Backend = p.backend.Variant()
			}
			describe(&s, loop.Status())
			if err := st.Broken(); err != nil {
				s.Errors = append(s.Errors, err.Error())
			}
			if err := st.Unwritable(ctx); err != nil {
				s.Notes = append(s.Notes, "calls that change something fail: "+err.Error())
			}
			if late != nil && ctx.Err() != nil {
				s.Errors = append(s.Errors, late.Error())
			}
			if hello, runs, err := p.ports.Hello(ctx); err != nil {
				s.Errors = append(s.Errors, err.Error())
			} else if runs {
				s.Relay = &control.Relay{PID: hello.PID, Version: hello.Version, Since: hello.Since, Sockets: hello.Sockets, Connections: hello.Connections}
			}
			if reason := p.unasked(); reason != "" {
				s.Notes = append(s.Notes, unasked+": "+reason)
			}
			if reason := p.undiverted(); reason != "" {
				s.Notes = append(s.Notes, undiverted+": the host lacks "+reason)
			}
			for id, reason := range p.links.Unguarded() {
				s.Notes = append(s.Notes, fmt.Sprintf("network %s: %s: %s", id.Short(), untranslated, reason))
			}
			if problem := garbage.Problem(); problem != "" {
				s.Notes = append(s.Notes, problem)
			}
			describeUnlinked(ctx, &s, network)
			slices.Sort(s.Notes)
			return s, nil
		},
	}
}

// verify has the loop look at the host.
func verify(ctx context.Context, loop *reconcile.Loop) ([]control.Difference, error) {
	findings, err := loop.Inspect(ctx)
	var out []control.Difference
	for _, f := range findings {
		out = append(out, control.Difference{Part: f.Step, Network: f.Scope.Network, Endpoint: f.Scope.Endpoint, Text: f.Text})
	}
	return out, err
}

// How long status waits for a comparison of host and state: usually, and where the last one failed.
const (
	checkTime  = 5 * time.Second
	brokenTime = time.Second
)

// describe adds how the last pass went.
func describe(s *control.Status, l reconcile.Status) {
	s.Applied = l.Applied
	for _, step := range l.Steps {
		if step.Error != "" {
			s.Errors = append(s.Errors, step.Error)
		}
	}
	if l.Disputed != "" {
		s.Notes = append(s.Notes, "somebody keeps undoing repairs, so that these wait, up to 30 seconds: find the program that changes this: "+l.Disputed)
	}
	if l.Passes == 0 {
		s.Errors = append(s.Errors, "the host has not been compared with the state yet")
	}
}

// describeUnlinked adds the endpoints that have no link.
func describeUnlinked(ctx context.Context, s *control.Status, network *driver.Driver) {
	running, gone, err := network.Unlinked(ctx)
	if err != nil {
		s.Errors = append(s.Errors, err.Error())
	}
	for _, e := range running {
		s.Errors = append(s.Errors, fmt.Sprintf("endpoint %s of network %s has no link into its container: restart the container", e.ID.Short(), e.Network.Short()))
	}
	for _, e := range gone {
		s.Notes = append(s.Notes, fmt.Sprintf("endpoint %s of network %s is of a container that is gone, and is removed within minutes", e.ID.Short(), e.Network.Short()))
	}
}

func listOrphans(ctx context.Context, c *collect.Collector) ([]control.Orphan, error) {
	found, err := c.List(ctx)
	var out []control.Orphan
	for _, o := range found {
		out = append(out, wireOrphan(o))
	}
	return out, err
}

func collectOrphans(ctx context.Context, c *collect.Collector) ([]control.Orphan, error) {
	results, err := c.Collect(ctx)
	var out []control.Orphan
	for _, r := range results {
		o := wireOrphan(r.Orphan)
		o.Removed = r.Removed
		if r.Err != nil {
			o.Error = r.Err.Error()
		} else if !r.Removed {
			o.Error = "it was changed meanwhile"
		}
		out = append(out, o)
	}
	return out, err
}

func wireOrphan(o collect.Orphan) control.Orphan {
	return control.Orphan{Kind: string(o.Kind), ID: o.ID, What: o.What, Why: o.Why, Since: o.Since, Seen: o.Seen, Unanswered: o.Unanswered}
}

// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"
)

// Run starts everything, shows the main path, and keeps it all running until ctx ends. Then, or at the first thing that
// goes wrong, it stops all that it started. The end of ctx is no error.
func Run(ctx context.Context, o Options) error {
	release, err := prepare(ctx, &o)
	if err != nil {
		return err
	}
	defer release()
	s := &supervisor{story: newStory(o.Output)}
	err = tell(ctx, &o, s)
	if err == nil {
		<-ctx.Done()
	}
	s.story.write("\n")
	s.story.tell("quickstart", "stopping what it started")
	s.stop()
	s.story.tell("quickstart", "stopped; the logs are in %s", o.Data)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tell starts one thing after the other, shows the demo, and returns while all of it runs.
func tell(ctx context.Context, o *Options, s *supervisor) error {
	s.story.tell("quickstart", "everything stays in %s and on loopback; state of an earlier run is gone", o.Data)
	redisURL, err := startRedis(ctx, o, s)
	if err != nil {
		return err
	}
	admin, err := startControlPlane(ctx, o, s)
	if err != nil {
		return err
	}
	if err := install(ctx, o); err != nil {
		return err
	}
	s.story.tell("apiserver", "has the CRD, the ServiceAccounts and their permissions of config/default")
	d, err := newDemo(o, s.story, admin)
	if err != nil {
		return err
	}
	// The receiver first, so that it is there until the dispatcher has ended.
	if d.receiver, err = startReceiver(ctx, s, d.key); err != nil {
		return err
	}
	if err := startPrograms(ctx, o, s, admin, redisURL); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	s.story.write(hints(o))
	return nil
}

func startPrograms(ctx context.Context, o *Options, s *supervisor, admin *rest.Config, redisURL string) error {
	if err := startManager(ctx, o, s, admin); err != nil {
		return err
	}
	return startDispatcher(ctx, o, s, admin, redisURL)
}

// hints are three commands to paste into another terminal, in the same directory.
func hints(o *Options) string {
	const text = `It all runs until Ctrl-C. Three things to try in another terminal, in this directory:

  Look at the subscription, its conditions and its deliveries:
    %[1]s --kubeconfig %[2]s describe webhooksubscription %[3]s

  Publish an event of your own, and see it arrive above:
    curl -X POST http://%[4]s/api/v1/events -H 'Content-Type: application/json' -d \
      '{"type": "deployment.completed", "source": "shell", "data": {"service": "shop", "version": "1.2.3"}}'

  Kill the dispatcher, see it start again, and publish once more: nothing is lost.
    kill -9 $(cat %[5]s)

`
	return fmt.Sprintf(text, kubectlName(o), o.data("kubeconfig"), sampleName, o.EventAddress, o.data("dispatcher.pid"))
}

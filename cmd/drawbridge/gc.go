package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/control"
)

func newGC() *cobra.Command {
	var dryRun bool
	cmd := question[[]control.Orphan]{
		ask: func(c *control.Client, ctx context.Context) ([]control.Orphan, error) {
			if dryRun {
				return c.Orphans(ctx)
			}
			return c.Collect(ctx)
		},
		write: control.WriteOrphans,
		judge: func(list []control.Orphan) error {
			for _, o := range list {
				if o.Error != "" {
					return errors.New("not all was removed: try again")
				}
			}
			return nil
		},
	}.command(&cobra.Command{
		Use:   "gc",
		Short: "Remove what Docker has forgotten",
		Long: `Remove networks, endpoints (with their ports and addresses) and address pools that no Docker engine of this host knows.
Docker forgets a container or a network that is removed while the daemon is away. The daemon itself removes
what has been missing for some minutes (serve --gc-grace) and was seen to be known before; this command removes
all of it at once. It asks the engines twice, some seconds apart, and leaves alone what has a link in a container.

If there are engines on this host that the daemon does not ask (serve --engine-socket), their networks look forgotten too:
look with --dry-run first.

It exits with 1 if an engine cannot be asked, in which case nothing is removed, or if something could not be removed.
With --dry-run it exits with 0 whatever it lists.`,
	})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be removed, and since when it is missing")
	return cmd
}

// Package prod is the real world.
package prod

import (
	_ "os"

	_ "github.com/kiloraft/kiloraft/internal/env"
	_ "github.com/kiloraft/kiloraft/storage" // want imports "does not import storage"
)

package client

import _ "github.com/kiloraft/kiloraft/internal/env/prod" // want imports "is not for client/core.go"

package client

import _ "github.com/kiloraft/kiloraft/internal/env/prod"

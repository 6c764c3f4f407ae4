"""HTTP before and below the routes: bounds of connections and bodies, uploads, event streams, hanging up."""

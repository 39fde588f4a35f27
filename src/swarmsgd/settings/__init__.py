"""What a run is asked to do, as frozen values that are checked when made."""

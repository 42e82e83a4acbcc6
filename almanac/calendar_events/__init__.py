"""The economic calendar: releases of figures, what was expected and what came."""

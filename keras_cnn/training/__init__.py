"""What methods train with: feeds, optimizers, schedules, histories, evaluation, kept features."""
